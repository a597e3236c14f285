#!/bin/bash
# A SLURM cluster of two nodes on this one machine, for tests: Debian's slurm-wlm and munge, as root.
# `slurm.sh stop` ends it.
set -eu
place=${SLURM_TEST_FOLDER:-/tmp/restora-slurm}
nodes=(restora-node1 restora-node2)
mark='# of a test cluster of SLURM'
if [ "${1:-start}" = stop ]; then
    for name in "${nodes[@]}" slurmctld; do
        [ -f "$place/$name.pid" ] && kill "$(cat "$place/$name.pid")" 2>/dev/null || true
    done
    cp /etc/hosts "$place/hosts" && grep -v "$mark" "$place/hosts" >/etc/hosts || true
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
SlurmdSpoolDir=$place/spool/%n
SlurmctldPidFile=$place/slurmctld.pid
SlurmdPidFile=$place/%n.pid
SlurmctldLogFile=$place/slurmctld.log
SlurmdLogFile=$place/%n.log
NodeName=${nodes[0]} NodeHostname=$host NodeAddr=127.0.0.1 Port=17001 CPUs=$cores RealMemory=$memory
NodeName=${nodes[1]} NodeHostname=$host NodeAddr=127.0.0.1 Port=17002 CPUs=$cores RealMemory=$memory
PartitionName=tests Nodes=ALL Default=YES State=UP MaxTime=INFINITE
CONF
export SLURM_CONF=$place/slurm.conf
pgrep -x munged >/dev/null || runuser -u munge -- munged --pid-file=/run/munge/munged.pid
grep -q "$mark" /etc/hosts || echo "127.0.0.1 ${nodes[*]} $mark" >>/etc/hosts # the tasks of a job ask for the first
slurmctld
for node in "${nodes[@]}"; do
    mkdir -p "$place/spool/$node"
    slurmd -N "$node"
done
for _ in $(seq 60); do
    [ "$(sinfo --noheader --Node --states=idle 2>/dev/null | wc -l)" = ${#nodes[@]} ] && exit 0
    sleep 1
done
tail "$place"/*.log >&2
exit 1
