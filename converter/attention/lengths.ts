/**
 * Guards against small samples: a sliding window of 256 looks purely causal at 11 positions. Where a mask is built from
 * numbers or buffers larger than the sampled sizes, it is worked out once more at a length that would show them.
 */
import type { Knowledge } from '../graph/knowledge.js';
import type { GraphNode } from '../graph/node.js';
import { isIntegerType } from '../graph/numeric.js';
import { pastLengths, type Derived } from './derive.js';
import type { Labelled } from './form.js';

/** Positions up to which a mask is worked out in full. */
const LONGEST = 2048;

/** True when nothing in the making of the tensor could change its pattern beyond the sampled sizes. */
export function confirmsAtLength(site: Derived, tensor: Labelled, knowledge: Knowledge): boolean {
  const isFixed = [...site.rows, ...site.keys].every((atom) =>
    atom.size.every((size) => size === atom.size[0]),
  );
  if (isFixed) return true;
  const sampled = Math.min(...[...site.rows, ...site.keys].map((atom) => Math.min(...atom.size)));
  const { number, buffer } = largestConstants(site, tensor.name, knowledge);
  if (Math.max(number, buffer) < sampled - 1) return true;
  if (number <= 2 && buffer === 0) return true;
  // A distance shows once positions are further apart than it, a buffer's pattern at its end.
  const distance = number > 2 ? number + 2 : 0;
  const length = Math.max(buffer, distance);
  if (length > LONGEST) return false;
  // Past and new positions are given one length each.
  const half = buffer >= distance ? Math.floor(length / 2) : Math.ceil(length / 2);
  return repeatsAtLength(site, tensor, knowledge, site.past?.key ? half : length);
}

/** Constants with more elements than this are buffers, which are cut to the current length. */
const FEW_ELEMENTS = 16;

interface Largest {
  readonly number: number;
  /** Longest side of a buffer; 0 without one. */
  readonly buffer: number;
}

/** The largest number of positions, and the largest buffer, that go into the value. */
function largestConstants(site: Derived, name: string, knowledge: Knowledge): Largest {
  const seen = new Set<GraphNode>();
  const stack = [name];
  let number = 0;
  let buffer = 0;
  while (stack.length > 0) {
    const current = stack.pop()!;
    const home = site.graph.definer(current);
    const node = home?.producer(current);
    if (node === undefined || node.opType === 'Constant') {
      const value = knowledge.environments[0]!.value(site.graph, current);
      if (value === null) return { number: Infinity, buffer: 0 };
      if (value.data.length > FEW_ELEMENTS) buffer = Math.max(buffer, ...value.dims);
      else {
        for (const entry of value.data) {
          if (isLength(entry, isIntegerType(value.type))) number = Math.max(number, Math.abs(entry));
        }
      }
      continue;
    }
    if (node.opType === 'Shape' || seen.has(node)) continue;
    seen.add(node);
    for (const input of node.inputs) if (input !== '') stack.push(input);
  }
  return { number, buffer };
}

/** Could be a number of positions: any integer but the open ends of slices; a float that is no fill of a mask. */
function isLength(value: number, isInteger: boolean): boolean {
  return isInteger ? Math.abs(value) < 2 ** 31 : value > -1000 && value <= 8192 && Number.isInteger(value);
}

/** Works the tensor out at the given length and compares its corner-to-corner pattern with the sampled one. */
function repeatsAtLength(site: Derived, tensor: Labelled, knowledge: Knowledge, length: number): boolean {
  const environment = knowledge.withLengths(length);
  const value = environment.value(site.graph, tensor.name);
  const sample = knowledge.environments[0]!.value(site.graph, tensor.name);
  if (value === null || sample === null || value.dims.length !== sample.dims.length) return false;
  const keys = value.dims.at(-1)!;
  const rows = value.dims.at(-2) ?? 1;
  const sampleKeys = sample.dims.at(-1)!;
  const sampleRows = sample.dims.at(-2) ?? 1;
  const offset = keys - rows;
  const sampleOffset = sampleKeys - sampleRows;
  const isWhole = sampleOffset === pastLengths(site)[0] && (sampleOffset > 0 ? offset > 0 : offset === 0);
  if (!isWhole) return false;
  const at = (i: number, j: number): number => value.data[i * keys + j]!;
  const sampleAt = (i: number, j: number): number => sample.data[i * sampleKeys + j]!;
  const [least, most] = [1 - sampleKeys, sampleRows - 1];
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < keys; j++) {
      const distance = Math.max(least, Math.min(most, j - i - offset));
      const expected =
        distance >= 0
          ? sampleAt(0, distance + sampleOffset)
          : sampleAt(sampleRows - 1, sampleKeys - 1 + distance);
      if (
        (distance === least || distance === most) &&
        Math.abs(at(i, j)) <= 1000 &&
        Math.abs(expected) <= 1000 &&
        expected !== 0 &&
        expected !== 1
      )
        continue;
      if (at(i, j) !== expected) return false;
    }
  }
  return true;
}
