// How the node is, at a glance: a sentence, the reasons, and the way out of each. Pure.

import { count, duration } from "./dom.js";

/** Behind by less than this many seconds of its own pace is how a stream looks. */
const STEADY_S = 2;

/** `{kind: "good" | "wait" | "bad", headline, reasons: [{why, hint}]}` of what /live said; *pace* in records a second. */
export function stateOf(live, pace) {
  const reasons = reasonsOf(live);
  const stopped = live.tables.filter((table) => table.stopped !== null);
  if (live.failed !== null) return { kind: "bad", headline: "Stopped: the apply loop ended", reasons };
  if (stopped.length === 1) return { kind: "bad", headline: `${stopped[0].table} is stopped`, reasons };
  if (stopped.length) return { kind: "bad", headline: `${stopped.length} tables are stopped`, reasons };
  if (live.log_away !== null) return { kind: "wait", headline: "The log does not answer", reasons };
  if (live.waiting_for !== null) return { kind: "wait", headline: "Waiting", reasons };
  if (!live.ready) return { kind: "wait", headline: behind(live.lag, pace, "Catching up"), reasons };
  if (live.lag > Math.max(1, pace * STEADY_S)) return { kind: "wait", headline: behind(live.lag, pace, "Behind"), reasons };
  return { kind: "good", headline: "Up to date", reasons };
}

function behind(lag, pace, word) {
  if (lag === null) return word;
  const time = pace > 0 ? `, about ${duration(lag / pace)} at this pace` : "";
  return `${word}: ${count(lag)} records to go${time}`;
}

function reasonsOf(live) {
  const reasons = [];
  if (live.failed !== null) reasons.push({ why: live.failed, hint: "start the node again; the store is whole up to its position" });
  for (const table of live.tables) {
    if (table.stopped !== null) reasons.push({ why: `${table.table}: ${table.stopped}`, hint: table.way_out });
    for (const open of table.open_transactions) {
      reasons.push({
        why: `${table.table}/${open.partition}: a transaction has been open for ${duration(open.seconds)}, and ${count(open.records)} records wait behind it`,
        hint: open.seconds > 15 ? "if its producer is gone, Kafka ends it after transaction.timeout.ms" : null,
      });
    }
  }
  for (const table of live.unfollowed) {
    reasons.push({ why: `${table} is in the store and not followed: its rows stay as they are`, hint: "name it in --tables to follow it again" });
  }
  if (live.log_away !== null) reasons.push({ why: live.log_away, hint: "queries go on, on what is here; level strong waits" });
  if (live.waiting_for !== null) reasons.push({ why: `Waiting for ${live.waiting_for}`, hint: null });
  if (!live.ready && live.not_ready !== null) reasons.push({ why: `Not ready: ${live.not_ready}`, hint: null });
  return reasons;
}
