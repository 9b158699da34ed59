/** Compares what a device returned for a case with what it must return. */

import { fromNumbers, type Tensor, toNumbers } from '../../op/tensor.js';
import type { Expected } from './tolerance.js';

export interface DeviceOutputs {
  readonly Y: Tensor;
  readonly present_key?: Tensor;
  readonly present_value?: Tensor;
}

const MISTAKES_TOLD = 3;

/** One sentence for each of the first mistakes; empty when the outputs are right. */
export function mistakes(outputs: DeviceOutputs, expected: Expected, presents: boolean): string[] {
  const found = mistakesOfY(outputs.Y, expected);
  if (presents)
    for (const name of ['present_key', 'present_value'] as const)
      found.push(...mistakesOfCopy(name, outputs[name], expected[name]));
  return found;
}

/** The largest |y - Y| / allowed of a finite element: 1 uses up the tolerance. */
export function worstShare(outputs: DeviceOutputs, { Y, allowed }: Expected): number {
  const values = toNumbers(outputs.Y);
  let worst = 0;
  values.forEach((value, index) => {
    const share = Math.abs(value - Y.data[index]!) / allowed[index]!;
    if (share > worst) worst = share;
  });
  return worst;
}

function mistakesOfY(found: Tensor, { Y, allowed }: Expected): string[] {
  if (String(found.dims) !== String(Y.dims)) return [`Y has shape [${found.dims}], must be [${Y.dims}].`];
  const values = toNumbers(found);
  const wrong: number[] = [];
  for (let index = 0; index < values.length; index++)
    if (!isWithin(values[index]!, Y.data[index]!, allowed[index]!, found.type)) wrong.push(index);
  const told = wrong
    .slice(0, MISTAKES_TOLD)
    .map(
      (index) =>
        `Y[${coordinates(index, Y.dims)}] is ${values[index]}, must be ${Y.data[index]} within ${allowed[index]}.`,
    );
  if (wrong.length > MISTAKES_TOLD) told.push(`${wrong.length} of ${values.length} elements of Y are wrong.`);
  return told;
}

function isWithin(value: number, expected: number, allowed: number, type: Tensor['type']): boolean {
  if (Number.isNaN(expected)) return Number.isNaN(value);
  if (Number.isFinite(expected))
    return Math.abs(value - expected) <= allowed || isSameOverflow(value, expected, type);
  return value === expected;
}

/** A value that rounds to an infinity of the output's type. */
function isSameOverflow(value: number, expected: number, type: Tensor['type']): boolean {
  if (Number.isFinite(value) || type === 'bool' || type === 'int64') return false;
  return toNumbers(fromNumbers(type, [1], [expected]))[0] === value;
}

function mistakesOfCopy(name: string, found: Tensor | undefined, expected: Tensor): string[] {
  if (found === undefined) return [`${name} is missing.`];
  if (String(found.dims) !== String(expected.dims))
    return [`${name} has shape [${found.dims}], must be [${expected.dims}].`];
  const [values, wanted] = [toNumbers(found), toNumbers(expected)];
  const index = values.findIndex((value, at) => value !== wanted[at] && !Number.isNaN(wanted[at]));
  if (index < 0) return [];
  return [
    `${name}[${coordinates(index, expected.dims)}] is ${values[index]}, must be a copy of ${wanted[index]}.`,
  ];
}

function coordinates(index: number, dims: readonly number[]): string {
  const result: number[] = [];
  for (let axis = dims.length - 1; axis >= 0; axis--) {
    result.unshift(index % dims[axis]!);
    index = Math.floor(index / dims[axis]!);
  }
  return result.join(',');
}
