/**
 * One thing at a time: overlapping calls into ONNX Runtime Web's asynchronous build freeze the page, also when they are on
 * different sessions. Everything that enters the runtime goes through this queue, in the order of the calls.
 */

let last: Promise<unknown> = Promise.resolve();

/** Runs `work` after everything that was queued before has settled. */
export function enqueue<T>(work: () => Promise<T>): Promise<T> {
  const result = last.then(work, work);
  last = result.catch(() => undefined);
  return result;
}
