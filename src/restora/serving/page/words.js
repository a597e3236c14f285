// How the page says things.

export function timeLeft(seconds) {
  if (seconds < 5) return "a few seconds left";
  if (seconds < 90) return `about ${Math.ceil(seconds / 5) * 5} s left`;
  if (seconds < 5400) return `about ${Math.round(seconds / 60)} min left`;
  return `about ${(seconds / 3600).toFixed(1)} h left`;
}

export function stateOf(item) {
  switch (item.state) {
    case "paint": return "Paint over what should be repaired, then press Restore" + (item.result ? "; the last result is kept until then" : "");
    case "queued": return item.note || "Waiting";
    case "sending": return "Sending";
    case "waiting": return item.note || (item.position > 0 ? `Waiting, ${item.position} ${item.position === 1 ? "photo" : "photos"} ahead` : "Waiting");
    case "running": return item.note || (item.left === null ? "Restoring" : `Restoring, ${timeLeft(item.left)}`);
    case "done": return (item.size ? `Done, ${item.size.width} × ${item.size.height} pixels` : "Done") + (item.noise != null ? `, the original was ${noiseWord(item.noise)} grainy` : "") + (item.frames > 1 ? `, only the first of ${item.frames} pages or frames was restored` : "");
    case "cancelled": return "Cancelled";
    default: return sentence(item.note || "Something went wrong");
  }
}

export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

export const noiseWord = (sigma) => (sigma < 3 ? "hardly" : sigma <= 10 ? "slightly" : sigma <= 25 ? "noticeably" : sigma <= 45 ? "very" : "extremely");
