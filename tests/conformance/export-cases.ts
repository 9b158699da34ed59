/**
 * Writes the conformance table in the layout of ONNX's backend tests, for runtimes in any language:
 *
 *   DIR/index.json
 *   DIR/<case>/model.onnx                        one SigmoidAttention node, and the portable function
 *   DIR/<case>/test_data_set_0/input_<n>.pb      the graph's inputs, in its order
 *   DIR/<case>/test_data_set_0/output_<n>.pb     the expected outputs, from the float64 reference, in T
 *   DIR/<case>/test_data_set_0/allowed_0.pb      float32, of Y's shape: how far each element may be from output_0
 */

import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import proto from 'onnx-proto';

import { INPUTS } from '../../op/schema.js';
import { tensorProto } from '../../op/tensor-proto.js';
import { fromNumbers, type Tensor, toNumbers } from '../../op/tensor.js';
import type { Case } from './case.js';
import { inputsOf } from './case-inputs.js';
import { attentionModel } from './model.js';
import { expectedOutputs } from './tolerance.js';

const { TensorProto } = proto.onnx;

/** What index.json says of one case. */
export interface IndexEntry {
  readonly name: string;
  readonly type: Case['type'];
  readonly rank: 3 | 4;
  readonly sizes: Case['sizes'];
  readonly attributes: Case['attributes'];
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** The largest number in allowed_0.pb, for runners that know only one absolute tolerance. */
  readonly largestAllowed: number;
}

export interface Index {
  readonly operator: string;
  readonly opset: number;
  readonly comparison: string;
  readonly cases: readonly IndexEntry[];
}

const OPSET = 17;
const COMPARISON =
  'Y may differ from output_0 by at most allowed_0, element by element, where output_0 is finite; NaN must be NaN and an ' +
  'infinity the same infinity. present_key and present_value must be equal to output_1 and output_2 (NaN equals NaN).';

/**
 * Writes all files into a folder beside `directory` first and renames it at the end, so that `directory` never holds a
 * part. Throws when it exists and is not empty, or when the folder above it does not exist.
 */
export async function exportCases(directory: string, cases: readonly Case[]): Promise<Index> {
  if ((await entriesOf(directory)).length > 0)
    throw new Error(`${directory} is not empty, must be a new or an empty folder.`);
  const partial = `${directory.replace(/[\\/]+$/, '')}.partial-${process.pid}`;
  await mkdir(partial);
  try {
    const entries: IndexEntry[] = [];
    for (const testCase of cases) entries.push(await exportCase(join(partial, testCase.name), testCase));
    const index: Index = {
      operator: 'ort.sigmoid::SigmoidAttention-1',
      opset: OPSET,
      comparison: COMPARISON,
      cases: entries,
    };
    await writeFile(join(partial, 'index.json'), `${JSON.stringify(index, null, 1)}\n`);
    await rm(directory, { recursive: true, force: true });
    await rename(partial, directory);
    return index;
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    throw error;
  }
}

async function entriesOf(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

async function exportCase(directory: string, testCase: Case): Promise<IndexEntry> {
  const { name, type, rank, sizes, attributes, presents } = testCase;
  const inputs = inputsOf(testCase);
  const expected = expectedOutputs(inputs, attributes);
  const Y = fromNumbers(type, expected.Y.dims, expected.Y.data);
  const allowed = allowedFromRounded(Y, expected.Y.data, expected.allowed);
  const given = INPUTS.flatMap((spec) => {
    const tensor = inputs[spec.name];
    return tensor === undefined ? [] : [[spec.name, tensor] as const];
  });
  const outputs: [string, Tensor][] = [['Y', Y]];
  if (presents)
    outputs.push(['present_key', expected.present_key], ['present_value', expected.present_value]);

  const data = join(directory, 'test_data_set_0');
  await mkdir(data, { recursive: true });
  const model = attentionModel({
    inputs,
    attributes,
    presents,
    opset: OPSET,
    withFunction: true,
    floatForBfloat16: false,
  });
  await writeFile(join(directory, 'model.onnx'), model);
  const write = (file: string, tensorName: string, tensor: Tensor): Promise<void> =>
    writeFile(join(data, file), TensorProto.encode(tensorProto(tensor, tensorName)).finish());
  for (const [index, [input, tensor]] of given.entries()) await write(`input_${index}.pb`, input, tensor);
  for (const [index, [output, tensor]] of outputs.entries())
    await write(`output_${index}.pb`, output, tensor);
  await write('allowed_0.pb', 'allowed', allowed);
  return {
    name,
    type,
    rank,
    sizes,
    attributes,
    inputs: given.map(([input]) => input),
    outputs: outputs.map(([output]) => output),
    largestAllowed: toNumbers(allowed).reduce((most, each) => (each > most ? each : most), 0),
  };
}

/** The bound around the unrounded Y as one around the rounded Y, itself rounded up; 0 where Y is not finite. */
function allowedFromRounded(Y: Tensor, unrounded: Float64Array, allowed: Float64Array): Tensor {
  const values = toNumbers(Y).map((value, index) => {
    const bound = allowed[index]! + Math.abs(value - unrounded[index]!);
    return Number.isFinite(bound) ? bound * (1 + 2 ** -22) + 2 ** -149 : 0;
  });
  return fromNumbers('float', Y.dims, values);
}
