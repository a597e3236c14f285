#!/bin/bash
# A SLURM cluster of this one machine, for tests: Debian's slurm-wlm and munge, as root. `slurm.sh stop` ends it.
set -eu
place=${SLURM_TEST_FOLDER:-/tmp/restora-slurm}
if [ "${1:-start}" = stop ]; then
    for name in slurmd slurmctld munged; do
        [ -f "$place/$name.pid" ] && kill "$(cat "$place/$name.pid")" 2>/dev/null || true
    done
    exit 0
fi
command -v slurmctld >/dev/null || apt-get install -y --no-install-recommends slurm-wlm munge
mkdir -p "$place/state" "$place/spool" /run/munge
chown munge /run/munge
cores=$(nproc)
[ "$cores" -ge 2 ] || cores=2 # a test has two tasks
memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
host=$(hostname -s)
cat >"$place/slurm.conf" <<CONF
ClusterName=tests
SlurmctldHost=$host(127.0.0.1)
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=20
StateSaveLocation=$place/state
SlurmdSpoolDir=$place/spool
SlurmctldPidFile=$place/slurmctld.pid
SlurmdPidFile=$place/slurmd.pid
SlurmctldLogFile=$place/slurmctld.log
SlurmdLogFile=$place/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory
PartitionName=tests Nodes=$host Default=YES State=UP MaxTime=INFINITE
CONF
export SLURM_CONF=$place/slurm.conf
pgrep -x munged >/dev/null || runuser -u munge -- munged --pid-file=/run/munge/munged.pid
slurmctld
slurmd
for _ in $(seq 60); do
    sinfo --noheader 2>/dev/null | grep -qE 'idle|mix|alloc' && exit 0
    sleep 1
done
tail "$place/slurmctld.log" "$place/slurmd.log" >&2
exit 1
