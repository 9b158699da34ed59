/** Overlapping runs, the event loop meanwhile, sessions in worker threads, and ends of threads and processes. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import * as ort from 'onnxruntime-node';
import '../../op/node/index.js';
import { assertClose, encode, feeds, qkv, QUIET } from './models.js';

const MODEL = encode({ inputs: qkv() });
/** Long enough for a timer to fire many times while it runs. */
const LONG = { queries: 3000, keys: 3000 };
const PROGRAMS = new URL('programs/', import.meta.url);

interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs tests/node/programs/‹name› in a Node process of its own. */
function program(name: string, ...args: string[]): Promise<Exit> {
  return new Promise((resolve, reject) => {
    const file = fileURLToPath(new URL(name, PROGRAMS));
    const child = spawn(process.execPath, ['--import', 'tsx', file, ...args]);
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (text: Buffer) => (stdout += text.toString()));
    child.stderr.on('data', (text: Buffer) => (stderr += text.toString()));
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
}

async function cleanly(name: string, ...args: string[]): Promise<string> {
  const { code, signal, stdout, stderr } = await program(name, ...args);
  assert.deepEqual({ code, signal }, { code: 0, signal: null }, stderr);
  return stdout.trim();
}

describe('runs', () => {
  it('leave the event loop free', async () => {
    const session = await ort.InferenceSession.create(MODEL, { intraOpNumThreads: 1 });
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    const run = session.run(feeds(LONG));
    const during = new Promise<number>((resolve) => setTimeout(() => resolve(ticks), 5));
    const first = await Promise.race([run.then(() => 'run'), during.then(() => 'timer')]);
    await run;
    clearInterval(timer);
    assert.equal(first, 'timer');
    assert.ok(ticks > 0);
  });

  it('leave the event loop free also when many quick ones follow each other', async () => {
    const session = await ort.InferenceSession.create(MODEL, { intraOpNumThreads: 1 });
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    const end = performance.now() + 50;
    while (performance.now() < end) await session.run(feeds());
    clearInterval(timer);
    assert.ok(ticks > 0);
  });

  it('go to the thread pool again when they are larger than the quick ones', async () => {
    const session = await ort.InferenceSession.create(MODEL, { intraOpNumThreads: 1 });
    for (let i = 0; i < 20; i++) await session.run(feeds());
    const run = session.run(feeds(LONG));
    const timer = new Promise((resolve) => setTimeout(() => resolve('timer'), 5));
    assert.equal(await Promise.race([run, timer]), 'timer');
    assert.deepEqual((await run).Y!.dims, [1, 4, 3000, 8]);
  });

  it('of one session may overlap', async () => {
    const session = await ort.InferenceSession.create(MODEL);
    const expected = (await session.run(feeds())).Y!;
    const runs = Array.from({ length: 40 }, () => session.run(feeds()));
    for (const { Y } of await Promise.all(runs)) assertClose(Y!, expected);
  });

  it('of many sessions may overlap, also while more are created and released', async () => {
    const expected = (await (await ort.InferenceSession.create(MODEL)).run(feeds())).Y!;
    await Promise.all(
      Array.from({ length: 32 }, async () => {
        const session = await ort.InferenceSession.create(MODEL, { intraOpNumThreads: 1 });
        const runs = await Promise.all([session.run(feeds()), session.run(feeds())]);
        await session.release();
        for (const { Y } of runs) assertClose(Y!, expected);
      }),
    );
  });

  it('finish when their session is released meanwhile', async () => {
    const session = await ort.InferenceSession.create(MODEL);
    const expected = (await session.run(feeds())).Y!;
    const run = session.run(feeds());
    await session.release();
    assertClose((await run).Y!, expected);
    await assert.rejects(session.run(feeds()), /^Error: Session already disposed\.$/);
  });

  it('report an error and leave the session usable', async () => {
    const session = await ort.InferenceSession.create(MODEL, QUIET);
    const wrong = { ...feeds(), V: feeds({ keys: 6 }).V };
    await assert.rejects(session.run(wrong), /V has 6 rows per head, must have 5, as many as K\./);
    assert.deepEqual((await session.run(feeds())).Y!.dims, [1, 4, 3, 8]);
  });
});

describe('worker threads', () => {
  const worker = (mode: string): Worker =>
    new Worker(new URL('session-worker.mjs', PROGRAMS), { workerData: { mode, model: MODEL } });

  it('run sessions of their own at the same time', async () => {
    const expected = [
      ...((await (await ort.InferenceSession.create(MODEL)).run(feeds())).Y!.data as Float32Array),
    ];
    const answers = Array.from(
      { length: 4 },
      () =>
        new Promise<number[]>((resolve, reject) => {
          const thread = worker('run');
          let answer: number[] = [];
          thread.on('message', (message: number[]) => (answer = message));
          thread.on('error', reject);
          thread.on('exit', () => resolve(answer));
        }),
    );
    for (const answer of await Promise.all(answers)) assert.deepEqual(answer, expected);
  });

  it('can be terminated during a run', async () => {
    assert.equal(await cleanly('terminate-worker.ts'), 'terminated');
  });
});

describe('the process', () => {
  it('ends cleanly without release', async () => {
    assert.equal(await cleanly('exit.ts', 'leave'), 'ran');
  });

  it('ends cleanly on process.exit during a run', async () => {
    assert.equal(await cleanly('exit.ts', 'exit-during-run'), 'running');
  });

  it('ends cleanly on process.exit with sessions in workers', async () => {
    assert.equal(await cleanly('exit.ts', 'exit-with-worker'), 'running');
  });

  it('routes whether this package or onnxruntime-node is imported first', async () => {
    assert.equal(await cleanly('import-order.ts', 'ours-first'), 'SigmoidSessionHandler');
    assert.equal(await cleanly('import-order.ts', 'stock-first'), 'SigmoidSessionHandler');
    assert.equal(await cleanly('import-order.ts', 'commonjs'), 'SigmoidSessionHandler');
  });
});
