/** Ends the process while eight sessions run: `exit.ts MILLISECONDS`. */
import * as ort from 'onnxruntime-node';
import '../../../op/node/index.js';
import { encode, feeds, qkv } from '../../node/models.js';

const model = encode({ inputs: qkv() });
const sessions = await Promise.all(
  Array.from({ length: 8 }, () => ort.InferenceSession.create(model, { intraOpNumThreads: 1 })),
);
for (const session of sessions) void session.run(feeds({ queries: 1500, keys: 1500 }));
setTimeout(() => {
  console.log(JSON.stringify({ running: sessions.length }));
  process.exit(0);
}, Number(process.argv[2]));
