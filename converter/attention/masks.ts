/**
 * Recognises masks and position terms by their numbers: a term that depends on constants and shapes only is worked out at
 * every choice of the symbolic sizes and compared with what the operator's attributes can say. What is not recognised, or
 * depends on run-time inputs, stays the tensor it is.
 */
import type { Knowledge } from '../graph/knowledge.js';
import { nodeLabel } from '../graph/node.js';
import { numeric } from '../graph/numeric.js';
import type { BiasMode } from '../../op/schema.js';
import type { MaskKind } from '../site.js';
import { canonicalValue, type CanonicalValue } from './canonical.js';
import { pastLengths, type Derived } from './derive.js';
import { EXCLUDED, Refused, type Addend, type KeptTriangle, type Visibility } from './form.js';
import type { Axis } from './layout.js';
import { confirmsAtLength } from './lengths.js';
import { leavesRowEmpty } from './row-coverage.js';
import { checkZeroedWeights } from './weight-masks.js';

export interface MaskPlan {
  isCausal: boolean;
  /** -1: unbounded. */
  left: number;
  right: number;
  bias: number;
  biasMode: BiasMode;
  headBias: number[] | null;
  alibi: number[] | null;
  /** Terms that stay tensors. */
  readonly addends: Addend[];
  readonly visible: Visibility[];
  readonly kinds: Set<MaskKind>;
  /** Some row may be left without a key by a tensor mask. */
  mayHideRows: boolean;
  /** No mask becomes a causal flag or window: rows that all masks together hide are decided by how far each lowers. */
  keepsTensors: boolean;
}

interface Band {
  readonly left: number;
  readonly right: number;
}

type Value = readonly CanonicalValue[];

/** What a fused operator says of its mask in attributes. */
export interface MaskAttributes {
  readonly isCausal: boolean;
  readonly left: number;
  readonly right: number;
}

const NO_ATTRIBUTES: MaskAttributes = { isCausal: false, left: -1, right: -1 };

export function planMasks(site: Derived, knowledge: Knowledge, attributes = NO_ATTRIBUTES): MaskPlan {
  const plan: MaskPlan = {
    ...attributes,
    bias: site.form.bias,
    biasMode: 'none',
    headBias: null,
    alibi: null,
    addends: [],
    visible: [],
    kinds: new Set(),
    mayHideRows: false,
    keepsTensors: false,
  };
  if (plan.isCausal) plan.kinds.add('causal');
  if (plan.left >= 0 || plan.right > 0) plan.kinds.add('window');
  if (site.nonpad !== null) plan.kinds.add('padding');
  checkMaskedProducts(site, knowledge);
  checkZeroedWeights(site, knowledge);
  for (const triangle of site.form.triangles) planTriangle(site, plan, triangle);
  // Keys hidden by a product with 0 are hidden by the addend that follows it.
  const shown = site.form.visible
    .filter(({ fill }) => fill !== 0)
    .map((entry) => ({ entry, value: visibleValue(site, entry, knowledge) }));
  if (
    site.kind === 'softmax' &&
    hideRowsTogether(
      site,
      shown.map(({ value }) => value),
      knowledge,
    )
  ) {
    plan.keepsTensors = true;
    plan.mayHideRows = true;
  }
  for (const { entry, value } of shown) planVisibility(site, plan, entry, value, knowledge);
  for (const addend of site.form.addends) planAddend(site, plan, addend, knowledge);
  for (const { fill, node } of plan.visible) {
    if (fill > EXCLUDED) {
      throw new Refused(
        'mask-not-excluding',
        `'${nodeLabel(node)}' replaces scores by ${fill}, which leaves the keys a weight`,
        [node],
      );
    }
  }
  return plan;
}

/** Some row is left without a key by the known masks together, though by none of them alone. */
function hideRowsTogether(site: Derived, shown: readonly (Value | null)[], knowledge: Knowledge): boolean {
  const excluding = site.form.addends.map(({ tensor, factor }) => {
    const value = evaluated(site, tensor, knowledge);
    return value?.map(({ dims, data }) => ({
      dims,
      data: data.map((entry) => (entry * factor <= EXCLUDED ? 0 : 1)),
    }));
  });
  const known = [...shown, ...excluding].filter((value) => value !== null && value !== undefined);
  const masks = known.filter((value) => value.some(({ data }) => data.includes(0)));
  return (
    masks.length > 1 &&
    knowledge.environments.some((_, index) => leavesRowEmpty(masks.map((value) => value[index]!)))
  );
}

function evaluated(site: Derived, tensor: Addend['tensor'], knowledge: Knowledge): Value | null {
  const values = knowledge.values(site.graph, tensor.name);
  if (values === null) return null;
  const out: CanonicalValue[] = [];
  for (const [environment, value] of values.entries()) {
    const canonical = canonicalValue(site, tensor.axes, value, environment);
    if (canonical === null) return null;
    out.push(canonical);
  }
  return out;
}

/** 1 where the key takes part, 0 where it does not. */
function visibleValue(site: Derived, entry: Visibility, knowledge: Knowledge): Value | null {
  const value = evaluated(site, entry.condition, knowledge);
  if (value === null) return null;
  return value.map(({ dims, data }) => ({
    dims,
    data: data.map((flag) => ((flag !== 0) !== entry.negated ? 1 : 0)),
  }));
}

function planVisibility(
  site: Derived,
  plan: MaskPlan,
  entry: Visibility,
  value: Value | null,
  knowledge: Knowledge,
): void {
  if (value !== null) {
    if (value.every(({ data }) => data.every((flag) => flag === 1))) return;
    const band = plan.keepsTensors ? null : commonBand(site, value);
    if (band !== null && confirmsAtLength(site, entry.condition, knowledge) && applyBand(plan, band)) return;
  }
  plan.visible.push(entry);
  describeTensor(site, plan, entry.condition, value, knowledge, entry.fill);
}

/** Narrows the plan's causal flag and window. */
function applyBand(plan: MaskPlan, band: Band): boolean {
  const narrower = (a: number, b: number): number => (a < 0 ? b : b < 0 ? a : Math.min(a, b));
  if (band.right === 0) plan.isCausal = true;
  else plan.right = narrower(plan.right, band.right);
  plan.left = narrower(plan.left, band.left);
  if (band.right === 0) plan.kinds.add('causal');
  if (band.left >= 0 || band.right > 0) plan.kinds.add('window');
  return true;
}

/** A triangle over rows and keys is a causal flag or a side of a window, where the operator counts positions from 0 as well. */
function planTriangle(site: Derived, plan: MaskPlan, triangle: KeptTriangle): void {
  const { rows, columns, upper, diagonal, node } = triangle;
  const are = (axis: Axis, atoms: Axis): boolean => {
    const found = site.space.resolve(axis);
    return found.length === atoms.length && found.every((atom, i) => atom === atoms[i]);
  };
  const isTurned = are(rows, site.keys) && are(columns, site.rows);
  const isPlaced = isTurned || (are(rows, site.rows) && are(columns, site.keys));
  // Row i keeps the keys up to i + size, or those from i - size on.
  const size = upper ? -diagonal : diagonal;
  if (!isPlaced || size < 0 || site.past !== null || site.nonpad !== null) {
    throw new Refused('weights-changed', `'${nodeLabel(node)}' cuts a triangle out of the weights`, [node]);
  }
  applyBand(plan, upper === isTurned ? { left: -1, right: size } : { left: size, right: -1 });
}

/** The one band that the mask is in every environment, counted from the row's own position. */
function commonBand(site: Derived, value: Value): Band | null {
  // With a key count of its own the operator counts positions from elsewhere.
  if (site.nonpad !== null) return null;
  const offsets = pastLengths(site);
  let found: Band | null = null;
  for (const [environment, { dims, data }] of value.entries()) {
    if (dims[0] !== 1 || dims[1] !== 1) return null;
    const band = bandOf(dims[2], dims[3], offsets[environment]!, data);
    if (band === null || (found !== null && (found.left !== band.left || found.right !== band.right)))
      return null;
    found = band;
  }
  return found;
}

/** A row at position p = i + offset sees the keys from p - left to p + right and no others; -1: a side is unbounded. */
function bandOf(rows: number, keys: number, offset: number, data: Float64Array): Band | null {
  if (data.length !== rows * keys || rows < 2) return null;
  let left = -Infinity;
  let right = -Infinity;
  for (let i = 0; i < rows; i++) {
    let first = -1;
    let last = -1;
    for (let j = 0; j < keys; j++) {
      if (data[i * keys + j] === 0) continue;
      if (first < 0) first = j;
      last = j;
    }
    if (first < 0) return null;
    if (first > 0) left = Math.max(left, i + offset - first);
    if (last < keys - 1) right = Math.max(right, last - i - offset);
  }
  const band = { left: Number.isFinite(left) ? left : -1, right: Number.isFinite(right) ? right : -1 };
  if ((Number.isFinite(left) && left < 0) || (Number.isFinite(right) && right < 0)) return null;
  for (let i = 0; i < rows; i++) {
    const position = i + offset;
    for (let j = 0; j < keys; j++) {
      const visible =
        (band.left < 0 || j >= position - band.left) && (band.right < 0 || j <= position + band.right);
      if (visible !== (data[i * keys + j] !== 0)) return null;
    }
  }
  return band;
}

function planAddend(site: Derived, plan: MaskPlan, addend: Addend, knowledge: Knowledge): void {
  const raw = evaluated(site, addend.tensor, knowledge);
  const value =
    raw?.map(({ dims, data }) => ({ dims, data: data.map((entry) => entry * addend.factor) })) ?? null;
  const withoutKeys = !site.space
    .resolveAll(addend.tensor.axes)
    .some((axis) => axis.some((atom) => site.keys.includes(atom)));
  // A softmax does not see what is the same for all keys of a row.
  if (site.kind === 'softmax' && withoutKeys) return;
  if (value !== null) {
    if (value.every(({ data }) => data.every((entry) => entry === 0))) return;
    if (planExclusion(site, plan, addend, value, knowledge)) return;
    if (withoutKeys && planOffset(site, plan, value)) return;
    if (planAlibi(site, plan, addend, value, knowledge)) return;
  }
  plan.addends.push(addend);
  describeTensor(site, plan, addend.tensor, value, knowledge, NaN);
}

/** A term of 0 and large negative numbers is a mask. */
function planExclusion(
  site: Derived,
  plan: MaskPlan,
  addend: Addend,
  value: Value,
  knowledge: Knowledge,
): boolean {
  if (!value.every(({ data }) => data.every((entry) => entry === 0 || entry <= EXCLUDED))) return false;
  const shown = value.map(({ dims, data }) => ({ dims, data: data.map((entry) => (entry === 0 ? 1 : 0)) }));
  const band = plan.keepsTensors ? null : commonBand(site, shown);
  return band !== null && confirmsAtLength(site, addend.tensor, knowledge) && applyBand(plan, band);
}

/** A term that is the same for all keys: a bias per model or head, -log n, or -log of the keys that the row sees. */
function planOffset(site: Derived, plan: MaskPlan, value: Value): boolean {
  const [first] = value;
  if (value.some(({ dims }) => dims[0] !== 1)) return false;
  if (value.every(({ dims }) => dims[1] === 1 && dims[2] === 1)) {
    const numbers = value.map(({ data }) => data[0]!);
    if (numbers.every((entry) => entry === numbers[0])) {
      plan.bias += numbers[0]!;
      return true;
    }
    const lengths = value.map((_, environment) => keyCount(site, environment));
    const rest = numbers.map((entry, i) => entry + Math.log(lengths[i]!));
    if (plan.biasMode !== 'none' || rest.some((entry) => Math.abs(entry - rest[0]!) > 1e-5)) return false;
    plan.biasMode = 'neg_log_total';
    if (Math.abs(rest[0]!) > 1e-6) plan.bias += rest[0]!;
    return true;
  }
  if (value.every(({ dims }) => dims[2] === 1) && plan.headBias === null) {
    const sameEverywhere = value.every(
      ({ data }) => data.length === first!.data.length && data.every((entry, i) => entry === first!.data[i]),
    );
    if (!sameEverywhere) return false;
    plan.headBias = Array.from(first!.data);
    return true;
  }
  const countsVisible = plan.isCausal && plan.left < 0 && plan.biasMode === 'none';
  const offsets = pastLengths(site);
  if (
    countsVisible &&
    value.every(
      ({ dims, data }, environment) =>
        dims[1] === 1 &&
        data.every((entry, i) => Math.abs(entry + Math.log(i + 1 + offsets[environment]!)) < 1e-5),
    )
  ) {
    plan.biasMode = 'neg_log_visible';
    return true;
  }
  return false;
}

function keyCount(site: Derived, environment: number): number {
  return site.keys.reduce((product, atom) => product * atom.size[environment]!, 1);
}

/** -slope |i - j| over the positions that the row sees; for a softmax up to a constant per row. */
function planAlibi(
  site: Derived,
  plan: MaskPlan,
  addend: Addend,
  value: Value,
  knowledge: Knowledge,
): boolean {
  if (plan.alibi !== null) return false;
  let slopes: number[] | null = null;
  for (const { dims, data } of value) {
    const [batch, heads, rows, keys] = dims;
    if (batch !== 1 || keys < 3) return false;
    const all = rows === 1 ? (site.kind === 'softmax' ? keys : 0) : rows;
    if (all !== keys) return false;
    const at = (h: number, i: number, j: number): number =>
      data[(h * rows + (rows === 1 ? 0 : i)) * keys + j]!;
    const found: number[] = [];
    for (let h = 0; h < heads; h++) {
      const shift = (i: number): number => (site.kind === 'softmax' ? at(h, i, i) : 0);
      const slope = -(at(h, keys - 1, 0) - shift(keys - 1)) / (keys - 1);
      for (let i = 0; i < all; i++) {
        for (let j = 0; j < keys; j++) {
          const seen =
            (!plan.isCausal || j <= i) &&
            (plan.left < 0 || j >= i - plan.left) &&
            (plan.right < 0 || j <= i + plan.right);
          const expected = -slope * Math.abs(i - j);
          if (seen && Math.abs(at(h, i, j) - shift(i) - expected) > 1e-5 * Math.max(1, Math.abs(expected)))
            return false;
        }
      }
      found.push(slope);
    }
    if (
      slopes !== null &&
      (slopes.length !== found.length ||
        slopes.some((slope, i) => Math.abs(slope - found[i]!) > 1e-6 * Math.abs(slope)))
    )
      return false;
    slopes = found;
  }
  const headCount = site.heads.reduce((product, atom) => product * atom.size[0]!, 1);
  const isFixed = site.heads.every((atom) => atom.size.every((size) => size === atom.size[0]));
  if (slopes === null || !isFixed || !confirmsAtLength(site, addend.tensor, knowledge)) return false;
  plan.alibi =
    slopes.length === headCount
      ? slopes
      : slopes.length === 1
        ? new Array<number>(headCount).fill(slopes[0]!)
        : null;
  if (plan.alibi === null) return false;
  plan.kinds.add('alibi');
  return true;
}

/** Scores multiplied by 0 are hidden only if another term, made from the same mask, lowers them. */
function checkMaskedProducts(site: Derived, knowledge: Knowledge): void {
  for (const entry of site.form.visible) {
    if (entry.fill !== 0) continue;
    const { name } = entry.condition;
    const shown = visibleValue(site, entry, knowledge);
    const lowers = shown === null ? lowersHidden(site, name, knowledge) : lowersShown(site, shown, knowledge);
    if (!lowers) {
      throw new Refused(
        'mask-not-excluding',
        `'${nodeLabel(entry.node)}' multiplies scores by a mask that leaves the keys a weight`,
        [entry.node],
      );
    }
  }
}

function lowersShown(site: Derived, shown: Value, knowledge: Knowledge): boolean {
  return shown.every((value, environment) => {
    const totals = new Float64Array(value.data.length);
    for (const addend of site.form.addends) {
      const term = evaluated(site, addend.tensor, knowledge)?.[environment];
      if (term === undefined || term.dims.some((dim, axis) => dim !== value.dims[axis])) continue;
      term.data.forEach((number, i) => (totals[i]! += number * addend.factor));
    }
    return value.data.every((flag, i) => flag === 1 || totals[i]! <= EXCLUDED);
  });
}

/** A run-time mask of 0 and 1: some addend is at most EXCLUDED when the mask is 0. */
function lowersHidden(site: Derived, mask: string, knowledge: Knowledge): boolean {
  const [environment] = knowledge.environments;
  const dims = environment!.dims(site.graph, mask);
  if (dims === null) return false;
  const zeros = numeric(1, dims, new Float64Array(dims.reduce((product, dim) => product * dim, 1)));
  return site.form.addends.some(({ tensor, factor }) => {
    const value = environment!.evaluate(site.graph, tensor.name, new Map([[mask, zeros]]));
    return value !== null && value.data.every((number) => number * factor <= EXCLUDED);
  });
}

/** Names what a tensor mask looks like, for the reader; it stays a tensor whatever it is called. */
function describeTensor(
  site: Derived,
  plan: MaskPlan,
  tensor: Addend['tensor'],
  value: Value | null,
  knowledge: Knowledge,
  fill: number,
): void {
  const atoms = new Set(site.space.resolveAll(tensor.axes).flat());
  const overRows = site.rows.some((atom) => atoms.has(atom));
  if (value !== null) {
    const isMask =
      !Number.isNaN(fill) ||
      value.every(({ data }) => data.every((entry) => entry === 0 || entry <= EXCLUDED));
    plan.kinds.add(isMask ? 'tensor' : 'bias');
    plan.mayHideRows ||= hidesRow(value, Number.isNaN(fill));
    return;
  }
  plan.mayHideRows = true;
  const probe = probeWithOnes(site, tensor, knowledge);
  if (probe !== null) {
    const flags = probe.map(({ dims, data }) => ({
      dims: [1, 1, dims[2], dims[3]] as [number, number, number, number],
      data: data
        .subarray(0, dims[2] * dims[3])
        .map((entry) => (Number.isNaN(fill) ? (entry > EXCLUDED ? 1 : 0) : entry)),
    }));
    if (flags.every(({ data }) => data.every((flag) => flag === flags[0]!.data[0]))) {
      plan.kinds.add(overRows ? 'tensor' : 'padding');
      return;
    }
    const band = commonBand(site, flags);
    if (band !== null) {
      if (band.right === 0) plan.kinds.add('causal');
      if (band.left >= 0 || band.right > 0) plan.kinds.add('window');
      plan.kinds.add('padding');
      return;
    }
  }
  plan.kinds.add(overRows ? 'tensor' : 'padding');
}

/** Mask values up to this far from 0 leave the scores in the range that the operator's weights resolve. */
const NEAR_ZERO = 16;

/** Some row shows no key, or is shifted as a whole (which a softmax does not notice). */
function hidesRow(value: Value, additive: boolean): boolean {
  return value.some(({ dims, data }) => {
    const keys = dims[3];
    for (let row = 0; row < data.length / keys; row++) {
      const part = data.subarray(row * keys, (row + 1) * keys);
      const top = part.reduce((largest, entry) => Math.max(largest, entry), -Infinity);
      if (additive ? Math.abs(top) > NEAR_ZERO : top === 0) return true;
    }
    return false;
  });
}

/** The mask when every integer and boolean model input is 1 (all tokens real). */
function probeWithOnes(site: Derived, tensor: Addend['tensor'], knowledge: Knowledge): Value | null {
  const out: CanonicalValue[] = [];
  for (const [index, environment] of knowledge.environments.entries()) {
    const ones = new Map(
      knowledge.model.graph.inputs.flatMap((input) => {
        const dims = environment.dims(knowledge.model.graph, input.name);
        const type = knowledge.type(knowledge.model.graph, input.name);
        if (dims === null || ![6, 7, 9].includes(type) || dims.reduce((a, b) => a * b, 1) > 1 << 16)
          return [];
        return [
          [
            input.name,
            numeric(type, dims, new Float64Array(dims.reduce((a, b) => a * b, 1)).fill(1)),
          ] as const,
        ];
      }),
    );
    const value = environment.evaluate(site.graph, tensor.name, ones);
    const canonical = value === null ? null : canonicalValue(site, tensor.axes, value, index);
    if (canonical === null) return null;
    out.push(canonical);
  }
  return out;
}
