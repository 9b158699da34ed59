/** Sessions created, run and released, up to 32 at a time: `sessions.ts COUNT`. Prints memory as runs.ts does. */
import * as ort from 'onnxruntime-node';
import '../../../op/node/index.js';
import { encode, feeds, qkv } from '../../node/models.js';
import { residentMiB } from '../memory.js';

const AT_A_TIME = 32;
const count = Number(process.argv[2]);
const model = encode({ inputs: qkv() });
const inputs = feeds();
let expected: Float32Array | null = null;
let different = 0;

async function one(): Promise<void> {
  const session = await ort.InferenceSession.create(model, { intraOpNumThreads: 1 });
  const results = await Promise.all([session.run(inputs), session.run(inputs)]);
  await session.release();
  for (const { Y } of results) {
    const data = Y!.data as Float32Array;
    expected ??= Float32Array.from(data);
    if (data.some((value, i) => value !== expected![i])) different++;
  }
}

let early = 0;
for (let done = 0; done < count; done += AT_A_TIME) {
  await Promise.all(Array.from({ length: AT_A_TIME }, one));
  if (early === 0 && done + AT_A_TIME >= count / 4) early = residentMiB();
}
const late = residentMiB();
console.log(JSON.stringify({ sessions: count, different, early, late, growth: late - early }));
