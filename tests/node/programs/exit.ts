// Ends the process in the way that the first argument names.
import { Worker } from 'node:worker_threads';
import * as ort from 'onnxruntime-node';
import '../../../op/node/index.js';
import { encode, feeds, qkv } from '../models.js';

const model = encode({ inputs: qkv() });

function announceAndExit(): void {
  console.log('running');
  setTimeout(() => process.exit(0), 20);
}

switch (process.argv[2]) {
  case 'leave': {
    const session = await ort.InferenceSession.create(model);
    await session.run(feeds());
    console.log('ran');
    break;
  }
  case 'exit-during-run': {
    const session = await ort.InferenceSession.create(model, { intraOpNumThreads: 1 });
    void session.run(feeds({ queries: 4000, keys: 4000 }));
    announceAndExit();
    break;
  }
  case 'exit-with-worker': {
    const workerData = { mode: 'run-long', model };
    const worker = new Worker(new URL('session-worker.mjs', import.meta.url), { workerData });
    worker.once('message', announceAndExit);
    break;
  }
}
