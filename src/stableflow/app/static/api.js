// Talks to the server: JSON in, JSON out, and requests that wait in the queue.

export async function call(path, { method = "GET", json, body } = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      method, body: json === undefined ? body : JSON.stringify(json),
      headers: json === undefined ? {} : { "content-type": "application/json" },
    });
  } catch {
    throw new Error("The app does not answer. It may have been closed, or the network is down. Your history is kept.");
  }
  const data = await answer.json().catch(() => null);
  if (!answer.ok) {
    const fault = new Error(data?.error?.message ?? `The app answered with an error (${answer.status}).`);
    fault.status = answer.status;
    throw fault;
  }
  return data;
}

// Puts a request into the queue and tells of it until it is over; returns its result, null where it was cancelled.
export async function run(path, json, { told = () => {}, signal = null } = {}) {
  let job = await call(path, { method: "POST", json });
  const cancel = () => call(`api/jobs/${job.id}`, { method: "DELETE" }).catch(() => {});
  signal?.addEventListener("abort", cancel);
  if (signal?.aborted) cancel();
  try {
    while (job.state === "waiting" || job.state === "running") {
      told(job);
      job = await call(`api/jobs/${job.id}?seen=${job.version}`);
    }
  } finally {
    signal?.removeEventListener("abort", cancel);
  }
  if (job.state === "failed") throw new Error(job.error);
  return job.state === "cancelled" ? null : job.result;
}

export const upload = (blob) => call("api/pictures", { method: "POST", body: blob });

export const fileOf = (entry, file) => `api/history/${entry.id}/${file}`;

// What is happening, in words.
export function newsOf(job) {
  if (job.state === "waiting" && job.ahead > 0) return `Waiting: ${job.ahead} before you, about ${Math.ceil(job.wait)} s`;
  const stage = job.stage.charAt(0).toUpperCase() + job.stage.slice(1);
  return job.steps ? `${stage}: step ${job.step} of ${job.steps}` : `${stage}…`;
}
