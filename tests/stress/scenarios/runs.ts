/** Many runs of one session: `runs.ts COUNT`. Prints the resident memory after a tenth of them and at the end, in MiB. */
import * as ort from 'onnxruntime-node';
import '../../../op/node/index.js';
import { encode, feeds, qkv } from '../../node/models.js';
import { residentMiB } from '../memory.js';

const count = Number(process.argv[2]);
const session = await ort.InferenceSession.create(encode({ inputs: qkv() }), { intraOpNumThreads: 2 });
const inputs = feeds();
const first = [...((await session.run(inputs)).Y!.data as Float32Array)];
let early = 0;
let different = 0;
for (let run = 1; run <= count; run++) {
  const { Y } = await session.run(inputs);
  if ((Y!.data as Float32Array).some((value, i) => value !== first[i])) different++;
  if (run === Math.ceil(count / 10)) early = residentMiB();
}
const late = residentMiB();
await session.release();
console.log(JSON.stringify({ runs: count, different, early, late, growth: late - early }));
