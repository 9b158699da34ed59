/** The model zoo on disk: its index, its files, and inputs to run each with. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { readNpz } from '../converter/data/npz.js';
import type { Feeds, Sample } from '../converter/data/tensor.js';
import type { Model } from '../converter/index.js';

export interface ZooEntry {
  readonly path: string;
  readonly group: string;
  readonly arch: string;
  readonly exporter_id: string;
  readonly dtype: string;
  readonly polarity: string;
  readonly softmax_sites: number;
  readonly sigmoid_sites: number;
  readonly npz: string | null;
  readonly ort_runs: boolean;
  readonly notes: string | null;
}

export interface Zoo {
  readonly entries: readonly ZooEntry[];
  bytes(entry: ZooEntry): Uint8Array;
  /** Recorded inputs, else made up ones. Where ONNX Runtime does not take the recorded batch they are cut to its first entry. */
  feeds(entry: ZooEntry, model: Model): Feeds[];
  /** Recorded inputs and what the model's author computed for them; none where nothing was recorded. */
  recordings(entry: ZooEntry, model: Model): Recording[];
}

export interface Recording {
  readonly inputs: Feeds;
  readonly outputs: Feeds;
}

/** @param folder holds index.json (or its parent's `zoo` does) and the groups. */
export function openZoo(folder: string, indexPath = join(folder, 'index.json')): Zoo {
  const entries = JSON.parse(readFileSync(indexPath, 'utf8')) as ZooEntry[];
  return {
    entries: entries.filter((entry) => existsSync(join(folder, entry.path))),
    bytes: (entry) => readFileSync(join(folder, entry.path)),
    feeds: (entry, model) => {
      const recorded = recordingsOf(folder, entry, model).map(({ inputs }) => inputs);
      if (recorded.length === 0) return [generatedFeeds(model)];
      return entry.ort_runs ? recorded : recorded.map((feeds) => firstOfBatch(feeds, model));
    },
    recordings: (entry, model) => recordingsOf(folder, entry, model),
  };
}

function recordingsOf(folder: string, entry: ZooEntry, model: Model): Recording[] {
  if (entry.npz === null) return [];
  const file = join(folder, entry.npz);
  const arrays = Object.entries(readNpz(readFileSync(file), file));
  const part = (prefix: string): Feeds =>
    Object.fromEntries(
      arrays.flatMap(([name, array]) =>
        name.startsWith(prefix) ? [[name.slice(prefix.length), array]] : [],
      ),
    );
  const names = model.graph.inputs
    .filter(({ name }) => !model.graph.initializers.has(name))
    .map(({ name }) => name);
  return ['case0', 'case1']
    .map((run) => ({ inputs: part(`${run}.in.`), outputs: part(`${run}.out.`) }))
    .filter(({ inputs }) => names.length > 0 && names.every((name) => inputs[name] !== undefined));
}

/** Inputs whose first axis is open, cut to one entry of it. */
function firstOfBatch(feeds: Feeds, model: Model): Feeds {
  const cut = (name: string, sample: Sample): Sample => {
    const declared = model.graph.inputs.find((input) => input.name === name)?.dims;
    if (declared == null || typeof declared[0] === 'number' || sample.dims.length === 0) return sample;
    const dims = [1, ...sample.dims.slice(1)];
    const count = dims.reduce((product, dim) => product * dim, 1);
    return { ...sample, dims, data: sample.data.slice(0, count) };
  };
  return Object.fromEntries(Object.entries(feeds).map(([name, sample]) => [name, cut(name, sample)]));
}

/** A small, fixed random generator (a linear congruence), so that runs repeat. */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Inputs of the declared shapes; open dimensions are 1 (the first) or 8. */
export function generatedFeeds(model: Model): Feeds {
  const random = randomNumbers(7);
  const feeds: Record<string, Sample> = {};
  for (const { name, dataType, dims } of model.graph.inputs) {
    if (model.graph.initializers.has(name)) continue;
    const shape = (dims ?? []).map((dim, axis) => (typeof dim === 'number' ? dim : axis === 0 ? 1 : 8));
    const count = shape.reduce((product, dim) => product * dim, 1);
    if (dataType === 7)
      feeds[name] = {
        type: 'int64',
        dims: shape,
        data: BigInt64Array.from({ length: count }, () => BigInt(Math.floor(random() * 50))),
      };
    else if (dataType === 9) feeds[name] = { type: 'bool', dims: shape, data: new Uint8Array(count).fill(1) };
    else
      feeds[name] = {
        type: 'float32',
        dims: shape,
        data: Float32Array.from({ length: count }, () => 2 * random() - 1),
      };
  }
  return feeds;
}
