// Terminates a worker in the middle of a run.
import { Worker } from 'node:worker_threads';
import { encode, qkv } from '../models.js';

const workerData = { mode: 'run-long', model: encode({ inputs: qkv() }) };
const worker = new Worker(new URL('session-worker.mjs', import.meta.url), { workerData });
worker.on('message', (message: string) => {
  if (message === 'finished') throw new Error('The run ended before the worker did.');
  setTimeout(() => {
    void worker.terminate().then(() => console.log('terminated'));
  }, 50);
});
