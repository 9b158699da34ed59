/**
 * How much memory one contender's first long run takes beyond its inputs and output. Runs in a process of its own:
 *   tsx bench/cpu/memory.ts SHAPE_INDEX CONTENDER_NAME     prints the bytes
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { contenders } from './contenders.js';
import { SHAPES, type Shape } from './shapes.js';
import { openSession } from './timing.js';
import '../../op/node/index.js';

const CLEAR_REFS = '/proc/self/clear_refs';

/** Bytes, or null where the system does not tell the peak (only Linux does). */
export function memoryGrowth(shape: Shape, contender: string): number | null {
  if (!existsSync(CLEAR_REFS)) return null;
  const index = SHAPES.indexOf(shape);
  const script = fileURLToPath(import.meta.url);
  const args = ['--import', 'tsx', script, String(index), contender];
  return Number(execFileSync(process.execPath, args, { encoding: 'utf8' }));
}

function statusBytes(field: string): number {
  const line = readFileSync('/proc/self/status', 'utf8')
    .split('\n')
    .find((text) => text.startsWith(field));
  return Number(line!.replace(/\D+/g, '')) * 1024;
}

async function main(index: number, name: string): Promise<void> {
  const shape = SHAPES[index]!;
  const find = (of: Shape): ReturnType<typeof contenders>[number] =>
    contenders(of, 1).find((contender) => contender.name === name)!;
  // The same operators on a small input first: what they need once is not growth.
  const small = find({ ...shape, queryLength: 64, keyLength: 64 });
  const warm = await openSession(small.model, 1);
  await warm.run(small.feeds);
  const large = find(shape);
  const session = await openSession(large.model, 1);
  const before = statusBytes('VmRSS');
  writeFileSync(CLEAR_REFS, '5');
  const { y } = await session.run(large.feeds);
  const outputBytes = (y!.data as Float32Array).byteLength;
  process.stdout.write(String(Math.max(0, statusBytes('VmHWM') - before - outputBytes)));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(Number(process.argv[2]), process.argv[3]!);
