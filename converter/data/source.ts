/**
 * Sample data from a path: a folder or file of .npz, .npy or ONNX test data (.pb), or a JavaScript module that yields
 * feeds. A source can be walked any number of times and holds one file's runs in memory at a time.
 */
import { readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { runsOf, type InputInfo } from './inputs.js';
import { parseNpy } from './npy.js';
import { npzRuns } from './npz.js';
import { parseTensorProto } from './pb.js';
import { isSampleType, type Feeds, type Sample } from './tensor.js';

/** Runs of a model: `for await (const feeds of source)`, as often as needed. */
export interface SampleSource extends AsyncIterable<Feeds> {
  /** Where the samples come from, for people. */
  readonly description: string;
}

const MODULE = /\.(m?js|cjs|ts|mts)$/;
const naturalOrder = new Intl.Collator('en', { numeric: true }).compare;

/** Opens sample data. Throws one sentence where the path does not exist; unreadable files throw while walking. */
export async function openSamples(location: string, inputs: readonly InputInfo[]): Promise<SampleSource> {
  const found = await stat(location).catch((error: NodeJS.ErrnoException) => {
    throw new Error(
      `sample data ${location}: ${error.code === 'ENOENT' ? 'no such file or folder' : error.message}`,
    );
  });
  let walk: () => AsyncGenerator<Feeds>;
  if (found.isDirectory()) walk = () => folderRuns(location, inputs);
  else if (MODULE.test(location)) walk = () => moduleRuns(location, inputs);
  else walk = () => fileRuns(location, inputs);
  return { description: location, [Symbol.asyncIterator]: () => someRuns(walk(), location) };
}

/** At most `limit` runs of a source. */
export function firstRuns(source: SampleSource, limit: number): SampleSource {
  return {
    description: source.description,
    async *[Symbol.asyncIterator]() {
      let count = 0;
      for await (const feeds of source) {
        if (count++ >= limit) return;
        yield feeds;
      }
    },
  };
}

async function* someRuns(runs: AsyncGenerator<Feeds>, location: string): AsyncGenerator<Feeds> {
  let any = false;
  for await (const feeds of runs) {
    any = true;
    yield feeds;
  }
  if (!any) throw new Error(`sample data ${location}: no .npz, .npy or input_*.pb file there`);
}

async function* folderRuns(folder: string, inputs: readonly InputInfo[]): AsyncGenerator<Feeds> {
  const entries = await readdir(folder, { withFileTypes: true });
  const files = entries
    .filter((entry) => entry.isFile())
    .map((entry) => entry.name)
    .sort(naturalOrder);
  const protos = files.filter((name) => /^input_\d+\.pb$/.test(name));
  if (protos.length > 0) yield* protoRun(folder, protos, inputs);
  const arrays = files.filter((name) => name.endsWith('.npy'));
  const named = arrays.some((name) => inputs.some((input) => `${input.name}.npy` === name));
  if (named) {
    const run: Record<string, Sample> = {};
    for (const name of arrays) run[name.slice(0, -4)] = await readNpy(path.join(folder, name));
    yield* runsOf(run, inputs, folder);
  } else {
    for (const name of arrays) yield* fileRuns(path.join(folder, name), inputs);
  }
  for (const name of files.filter((file) => file.endsWith('.npz')))
    yield* fileRuns(path.join(folder, name), inputs);
  const folders = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  for (const name of folders.sort(naturalOrder)) yield* folderRuns(path.join(folder, name), inputs);
}

async function* protoRun(
  folder: string,
  files: readonly string[],
  inputs: readonly InputInfo[],
): AsyncGenerator<Feeds> {
  const run: Record<string, Sample> = {};
  for (const file of files) {
    const location = path.join(folder, file);
    const { name, tensor } = parseTensorProto(await readFile(location), location);
    const position = Number(/\d+/.exec(file)![0]);
    const byName = inputs.some((input) => input.name === name);
    run[byName ? name : (inputs[position]?.name ?? name)] = tensor;
  }
  yield* runsOf(run, inputs, folder);
}

async function* fileRuns(file: string, inputs: readonly InputInfo[]): AsyncGenerator<Feeds> {
  if (file.endsWith('.npz')) {
    for (const run of npzRuns(await readFile(file), file)) yield* runsOf(run, inputs, file);
    return;
  }
  const only = inputs[0];
  if (only === undefined || inputs.length > 1) {
    const names = inputs.map((input) => input.name).join(', ');
    throw new Error(
      `sample data ${file}: one array for a model with ${inputs.length} inputs (${names}); use .npz`,
    );
  }
  if (file.endsWith('.npy')) yield* runsOf({ [only.name]: await readNpy(file) }, inputs, file);
  else if (file.endsWith('.pb')) {
    yield* runsOf({ [only.name]: parseTensorProto(await readFile(file), file).tensor }, inputs, file);
  } else
    throw new Error(
      `sample data ${file}: allowed are .npz, .npy, .pb, a JavaScript module or a folder of them`,
    );
}

async function readNpy(file: string): Promise<Sample> {
  return parseNpy(await readFile(file), file);
}

async function* moduleRuns(file: string, inputs: readonly InputInfo[]): AsyncGenerator<Feeds> {
  const loaded = (await import(pathToFileURL(path.resolve(file)).href)) as Record<string, unknown>;
  const exported = loaded['feeds'] ?? loaded['default'];
  const runs: unknown = await (typeof exported === 'function'
    ? (exported as (i: unknown) => unknown)(inputs)
    : exported);
  if (!isIterable(runs))
    throw new Error(`sample data ${file}: the module must export an iterable "feeds" or a function`);
  let index = 0;
  for await (const feeds of runs) {
    const where = `${file}: feeds ${index++}`;
    if (typeof feeds !== 'object' || feeds === null) throw new Error(`${where}: not an object of tensors`);
    const run: Record<string, Sample> = {};
    for (const [name, tensor] of Object.entries(feeds))
      run[name] = checkedTensor(tensor, `${where}: "${name}"`);
    yield* runsOf(run, inputs, where);
  }
}

function isIterable(value: unknown): value is AsyncIterable<unknown> | Iterable<unknown> {
  return (
    typeof value === 'object' && value !== null && (Symbol.asyncIterator in value || Symbol.iterator in value)
  );
}

function checkedTensor(value: unknown, where: string): Sample {
  const { type, dims, data } = (value ?? {}) as Partial<Sample>;
  if (typeof type !== 'string' || !isSampleType(type) || !Array.isArray(dims) || !ArrayBuffer.isView(data)) {
    throw new Error(`${where}: not a tensor with type, dims and data`);
  }
  return { type, dims: dims as number[], data };
}
