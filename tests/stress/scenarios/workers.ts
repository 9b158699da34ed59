/** Eight workers run at the same time and are terminated in the middle of it: `workers.ts ROUNDS`. */
import { Worker } from 'node:worker_threads';
import { encode, qkv } from '../../node/models.js';

const WORKERS = 8;
const rounds = Number(process.argv[2]);
const model = encode({ inputs: qkv() });
let answers = 0;
let failures = 0;

for (let round = 0; round < rounds; round++) {
  await Promise.all(
    Array.from({ length: WORKERS }, async (_, i) => {
      const worker = new Worker(new URL('worker.mjs', import.meta.url), {
        workerData: { model, length: 200 },
      });
      await new Promise<void>((resolve) => {
        let seen = 0;
        worker.on('message', () => {
          answers++;
          // Each at another moment, most of them in a run.
          if (++seen > i) resolve();
        });
        worker.on('error', (error) => {
          failures++;
          console.error(error);
          resolve();
        });
      });
      await worker.terminate();
    }),
  );
}
console.log(JSON.stringify({ rounds, workers: rounds * WORKERS, answers, failures }));
