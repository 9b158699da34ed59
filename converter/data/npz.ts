/**
 * Reads NumPy's .npz archives. Arrays named `case0.in.NAME`, `case1.in.NAME`... are the inputs of one run each; otherwise
 * the arrays are the inputs of one run. One run's arrays are unpacked at a time.
 */
import { unzipSync, type UnzipFileInfo } from 'fflate';
import { parseNpy } from './npy.js';
import type { Sample } from './tensor.js';

const CASE = /^case(\d+)\.in\.(.+)$/;

/** Yields the arrays of one run after another. @param file what errors call the archive. */
export function* npzRuns(bytes: Uint8Array, file: string): Generator<Record<string, Sample>> {
  const names: string[] = [];
  unpack(bytes, file, (name) => {
    names.push(name);
    return false;
  });
  const cases = new Map<number, string[]>();
  for (const name of names) {
    const match = CASE.exec(arrayName(name));
    if (!match) continue;
    const index = Number(match[1]);
    const known = cases.get(index);
    if (known === undefined) cases.set(index, [name]);
    else known.push(name);
  }
  if (cases.size === 0) {
    yield arraysOf(bytes, file, names, (name) => name);
    return;
  }
  for (const index of [...cases.keys()].sort((a, b) => a - b)) {
    yield arraysOf(bytes, file, cases.get(index)!, (name) => CASE.exec(name)![2]!);
  }
}

/** Every array of the archive by its name; for archives that are known to be small. */
export function readNpz(bytes: Uint8Array, file: string): Record<string, Sample> {
  const arrays: Record<string, Sample> = {};
  for (const [name, body] of Object.entries(unpack(bytes, file, () => true))) {
    arrays[arrayName(name)] = parseNpy(body, `${file}: ${arrayName(name)}`);
  }
  return arrays;
}

function arraysOf(
  bytes: Uint8Array,
  file: string,
  names: readonly string[],
  inputName: (arrayName: string) => string,
): Record<string, Sample> {
  const wanted = new Set(names);
  const arrays: Record<string, Sample> = {};
  for (const [name, body] of Object.entries(unpack(bytes, file, (entry) => wanted.has(entry)))) {
    if (!name.endsWith('.npy')) continue;
    arrays[inputName(arrayName(name))] = parseNpy(body, `${file}: ${arrayName(name)}`);
  }
  return arrays;
}

/** Deflate cannot do better; an entry that says so would only make us reserve memory. */
const MAX_DEFLATE_RATIO = 1032;
/** Of one run's arrays, unpacked. */
const MAX_RUN_BYTES = 2 ** 31;
/** Of an entry in the archive's directory. */
const MIN_ENTRY_BYTES = 46;

function unpack(
  bytes: Uint8Array,
  file: string,
  wanted: (name: string) => boolean,
): Record<string, Uint8Array> {
  let entries = 0;
  let total = 0;
  const filter = ({ name, size, originalSize, compression }: UnzipFileInfo): boolean => {
    if (++entries * MIN_ENTRY_BYTES > bytes.length) throw new Error('it lists more entries than fit into it');
    if (!wanted(name)) return false;
    const unpacked = compression === 0 ? size : originalSize;
    if (unpacked > MAX_DEFLATE_RATIO * (size + 8)) {
      throw new Error(
        `'${name}' is said to unpack from ${size} to ${unpacked} bytes, which deflate cannot do`,
      );
    }
    total += unpacked;
    if (total > MAX_RUN_BYTES) {
      throw new Error(`one run's arrays unpack to ${total} bytes or more, allowed are ${MAX_RUN_BYTES}`);
    }
    return true;
  };
  try {
    return unzipSync(bytes, { filter });
  } catch (error) {
    throw new Error(`${file}: not a readable .npz archive (${(error as Error).message})`, { cause: error });
  }
}

const arrayName = (entry: string): string => entry.replace(/\.npy$/, '');
