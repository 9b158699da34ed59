/** What each scenario must show, whatever its length. */
import assert from 'node:assert/strict';
import { scenario, type Outcome } from './process.js';

/** Growth that the allocators' own caches explain, MiB; a leak of one small output a run exceeds it in 100,000 runs. */
const GROWTH_MIB = 24;

function cleanly({ code, signal, stderr, result }: Outcome): Readonly<Record<string, number>> {
  assert.deepEqual({ code, signal }, { code: 0, signal: null }, stderr);
  assert.ok(result !== null, `nothing was printed; ${stderr}`);
  return result;
}

export async function checkMemory(
  name: 'runs' | 'sessions',
  count: number,
): Promise<Readonly<Record<string, number>>> {
  const result = cleanly(await scenario(name, count));
  assert.equal(result['different'], 0, 'the same inputs gave different outputs');
  assert.ok(result['growth']! < GROWTH_MIB, `memory grew from ${result['early']} to ${result['late']} MiB`);
  return result;
}

export async function checkWorkers(rounds: number): Promise<{ answers: number }> {
  const result = cleanly(await scenario('workers', rounds));
  assert.equal(result['failures'], 0);
  return { answers: result['answers']! };
}

/** Ends a process `times` times, each at another moment. */
export async function checkExit(milliseconds: number, times = 1): Promise<void> {
  for (let i = 0; i < times; i++) {
    const result = cleanly(await scenario('exit', milliseconds + 7 * i));
    assert.equal(result['running'], 8);
  }
}
