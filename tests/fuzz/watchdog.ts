/**
 * Notices an input that never ends: the loop writes each input to shared memory before it runs it, and a thread looks
 * whether the number of inputs still grows. When it does not, the thread saves the input and ends the process.
 */
import { Worker } from 'node:worker_threads';

const HEADER_BYTES = 8;

const WATCH = `
const { workerData } = require('node:worker_threads');
const { mkdirSync, writeFileSync } = require('node:fs');
const { dirname } = require('node:path');
const { shared, path, milliseconds, header } = workerData;
const counters = new Int32Array(shared, 0, 2);
let last = -1;
let since = process.cpuUsage();
setInterval(() => {
  const count = Atomics.load(counters, 0);
  const used = process.cpuUsage(since);
  if (count !== last) since = process.cpuUsage();
  else if (count !== -1 && used.user + used.system > 1000 * milliseconds) {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, Buffer.from(shared, header, counters[1]));
    console.error('FIND ' + path + ': an input took more than ' + milliseconds + ' ms of CPU time');
    process.kill(process.pid, 'SIGKILL');
  }
  last = count;
}, 500);
`;

export class Watchdog {
  private readonly shared: SharedArrayBuffer;
  private readonly counters: Int32Array;
  private readonly worker: Worker;

  /**
   * @param path where an input that does not end is saved
   * @param milliseconds CPU time that one input may take
   */
  constructor(path: string, maxLength: number, milliseconds: number) {
    this.shared = new SharedArrayBuffer(HEADER_BYTES + maxLength);
    this.counters = new Int32Array(this.shared, 0, 2);
    const workerData = { shared: this.shared, path, milliseconds, header: HEADER_BYTES };
    this.worker = new Worker(WATCH, { eval: true, workerData });
    this.worker.unref();
  }

  watch(input: Uint8Array): void {
    const bytes = input.subarray(0, this.shared.byteLength - HEADER_BYTES);
    new Uint8Array(this.shared, HEADER_BYTES).set(bytes);
    this.counters[1] = bytes.length;
    Atomics.add(this.counters, 0, 1);
  }

  /** Stops watching; the count is set to a value that never counts as stuck. */
  stop(): Promise<number> {
    Atomics.store(this.counters, 0, -1);
    return this.worker.terminate();
  }
}
