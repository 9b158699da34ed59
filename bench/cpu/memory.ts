/**
 * How much memory one contender's first long run takes beyond its inputs and output: how far it raises the peak, less what a
 * model does that only writes an output of that size (which ONNX Runtime holds, and JavaScript gets a copy of). Runs in a
 * process of its own:
 *   tsx bench/cpu/memory.ts SHAPE_INDEX CONTENDER_NAME     prints the bytes
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { contenders } from './contenders.js';
import { SHAPES, type Shape } from './shapes.js';
import { model } from './model-builder.js';
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
  const plain = { ...large, model: outputOnly(large) };
  const baseline = await peakRise(plain);
  process.stdout.write(String(Math.max(0, (await peakRise(large)) - baseline)));
}

type Runnable = Pick<ReturnType<typeof contenders>[number], 'model' | 'feeds'>;

/** A model whose output is its input `q`, copied. */
function outputOnly({ feeds }: Runnable): Uint8Array {
  const query = { type: 'float', dims: feeds['q']!.dims } as const;
  return model({ q: query }, { y: query }, {}, [{ op: 'Identity', inputs: ['q'], outputs: ['y'] }]);
}

async function peakRise({ model: bytes, feeds }: Runnable): Promise<number> {
  const session = await openSession(bytes, 1);
  const wanted = Object.fromEntries(session.inputNames.map((name) => [name, feeds[name]!]));
  const before = statusBytes('VmRSS');
  writeFileSync(CLEAR_REFS, '5');
  await session.run(wanted);
  const rise = statusBytes('VmHWM') - before;
  await session.release();
  return rise;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(Number(process.argv[2]), process.argv[3]!);
