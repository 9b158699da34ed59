/** Checks arrays against a model's inputs and cuts them into runs that the model accepts. */
import { describe, isSampleType, sliceRows, type Feeds, type Sample } from './tensor.js';

/** One input of a model; a string in `shape` is a free dimension's name. */
export interface InputInfo {
  readonly name: string;
  readonly type: string;
  readonly shape: readonly (number | string)[];
}

/** Longer batches are cut into runs of this many rows, so that memory does not grow with the number of samples. */
const ROWS_PER_RUN = 16;
const BATCH_NAME = /batch|^(b|n|bs|bsz)$/i;

/**
 * Yields the runs that the arrays hold: one, or several where all arrays stack samples along axis 0 beyond what the model
 * takes at once. Arrays that the model has no input for are left out.
 * @param where what errors call the source
 */
export function* runsOf(
  arrays: Readonly<Record<string, Sample>>,
  inputs: readonly InputInfo[],
  where: string,
): Generator<Feeds> {
  const feeds: Record<string, Sample> = {};
  for (const input of inputs) {
    const sample = arrays[input.name];
    if (!sample) {
      const found = Object.keys(arrays).join(', ') || 'none';
      throw new Error(`${where}: no array for input "${input.name}"; found ${found}`);
    }
    checkType(sample, input, where);
    feeds[input.name] = sample;
  }
  const rows = rowsPerRun(feeds, inputs);
  const total = Object.values(feeds)[0]?.dims[0] ?? 0;
  if (rows === null || rows >= total) {
    for (const input of inputs) checkDims(feeds[input.name]!, input, where);
    yield feeds;
    return;
  }
  for (let from = 0; from < total; from += rows) {
    const run: Record<string, Sample> = {};
    for (const input of inputs) {
      run[input.name] = sliceRows(feeds[input.name]!, from, Math.min(from + rows, total));
      checkDims(run[input.name]!, input, where);
    }
    yield run;
  }
}

function checkType(sample: Sample, input: InputInfo, where: string): void {
  if (!isSampleType(input.type)) {
    throw new Error(
      `${where}: input "${input.name}" is of type ${input.type}, which sample data cannot hold`,
    );
  }
  if (sample.type !== input.type || sample.dims.length !== input.shape.length) {
    throw new Error(
      `${where}: input "${input.name}" needs ${input.type} of rank ${input.shape.length}, found ${describe(sample)}`,
    );
  }
}

function checkDims(sample: Sample, input: InputInfo, where: string): void {
  const fits = input.shape.every(
    (dim, axis) => typeof dim === 'string' || dim < 0 || dim === sample.dims[axis],
  );
  if (!fits) {
    throw new Error(
      `${where}: input "${input.name}" needs the shape [${input.shape.join(', ')}], found ${describe(sample)}`,
    );
  }
}

/** Rows of axis 0 that go into one run, or null where the arrays are one run whatever their size. */
function rowsPerRun(feeds: Feeds, inputs: readonly InputInfo[]): number | null {
  const totals = new Set(inputs.map((input) => feeds[input.name]!.dims[0]));
  if (totals.size !== 1 || totals.has(undefined)) return null;
  const total = [...totals][0]!;
  const axes = new Set(inputs.map((input) => input.shape[0]));
  if (axes.size !== 1) return null;
  const axis = [...axes][0]!;
  if (typeof axis === 'number' && axis > 0) return total % axis === 0 ? axis : null;
  return typeof axis === 'string' && BATCH_NAME.test(axis) ? ROWS_PER_RUN : null;
}
