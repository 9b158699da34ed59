// A worker thread with a session of its own. tsx does not reach into workers by itself.
import { register } from 'tsx/esm/api';
import { parentPort, workerData } from 'node:worker_threads';

register();
await import('../../../op/node/index.ts');
const { InferenceSession } = await import('onnxruntime-node');
const { feeds } = await import('../models.ts');

const session = await InferenceSession.create(workerData.model, { intraOpNumThreads: 1 });
if (workerData.mode === 'run') {
  const { Y } = await session.run(feeds());
  parentPort.postMessage([...Y.data]);
} else {
  const run = session.run(feeds({ queries: 20000, keys: 20000 }));
  parentPort.postMessage('running');
  await run;
  parentPort.postMessage('finished');
}
