/**
 * Values of small tensors, operator by operator: the arithmetic that models do on shapes and masks. One table keyed by
 * operator; an operator that is not here simply has no known value. Semantics follow the ONNX operator specification.
 */
import { DataType, elementCount } from '../onnx/tensor.js';
import {
  axisAttribute,
  flattenAxis,
  floatAttribute,
  type GraphNode,
  intAttribute,
  intsAttribute,
  permutation,
  textAttribute,
} from './node.js';
import {
  broadcastDims,
  broadcastIndex,
  expandTo,
  gatherView,
  isIntegerType,
  numeric,
  rounder,
  strides,
  type NumericTensor,
} from './numeric.js';
import { axesOf, reshapeDims, sliceAxes, splitSizes } from './operator-arguments.js';

/** Elements beyond which a value is not worked out. */
export const MAX_ELEMENTS = 1 << 22;

export interface EvaluationInput {
  readonly node: GraphNode;
  readonly opset: number;
  /** By input position; `null` for an input left out. */
  readonly inputs: readonly (NumericTensor | null)[];
}

type Evaluator = (input: EvaluationInput) => readonly NumericTensor[] | null;

export function evaluateNode(input: EvaluationInput): readonly NumericTensor[] | null {
  const evaluator = input.node.domain === '' ? EVALUATORS[input.node.opType] : undefined;
  return evaluator === undefined ? null : evaluator(input);
}

export function canEvaluate(node: GraphNode): boolean {
  return node.domain === '' && EVALUATORS[node.opType] !== undefined;
}

const unary =
  (compute: (value: number) => number, resultType?: number): Evaluator =>
  ({ inputs: [x] }) => {
    if (!x) return null;
    const type = resultType ?? x.type;
    const round = rounder(type);
    return [
      numeric(
        type,
        x.dims,
        x.data.map((value) => round(compute(value))),
      ),
    ];
  };

const binary =
  (compute: (a: number, b: number, integer: boolean) => number, resultType?: number): Evaluator =>
  ({ inputs: [a, b] }) => {
    if (!a || !b) return null;
    const dims = broadcastDims(a.dims, b.dims);
    if (dims === null || elementCount(dims) > MAX_ELEMENTS) return null;
    const type = resultType ?? a.type;
    const round = rounder(type);
    const integer = isIntegerType(a.type);
    const left = broadcastIndex(a.dims, dims);
    const right = broadcastIndex(b.dims, dims);
    const data = new Float64Array(left.length);
    for (let i = 0; i < data.length; i++)
      data[i] = round(compute(a.data[left[i]!]!, b.data[right[i]!]!, integer));
    return [numeric(type, dims, data)];
  };

const variadic =
  (compute: (a: number, b: number) => number): Evaluator =>
  (input) => {
    // Math.min would count a third argument in.
    const pair = binary((a, b) => compute(a, b));
    let total = input.inputs[0] ?? null;
    for (const next of input.inputs.slice(1)) {
      const step: readonly NumericTensor[] | null =
        total === null || !next ? null : pair({ ...input, inputs: [total, next] });
      total = step?.[0] ?? null;
    }
    return total === null ? null : [total];
  };

const flag = (value: boolean): number => (value ? 1 : 0);

function modulo(a: number, b: number, floored: boolean): number {
  const rest = a % b;
  return floored && rest !== 0 && rest < 0 !== b < 0 ? rest + b : rest;
}

const reduce =
  (
    start: number,
    add: (total: number, value: number) => number,
    finish: (total: number, count: number) => number,
  ): Evaluator =>
  ({ node, inputs: [x, axesInput] }) => {
    if (!x) return null;
    const rank = x.dims.length;
    let axes = axesOf(node, rank, axesInput);
    if (axes === null || axes.length === 0) {
      if (intAttribute(node, 'noop_with_empty_axes', 0) === 1) return [x];
      axes = x.dims.map((_, axis) => axis);
    }
    const keepDims = intAttribute(node, 'keepdims', 1) === 1;
    const reduced = new Set(axes);
    const kept = x.dims.map((dim, axis) => (reduced.has(axis) ? 1 : dim));
    const index = broadcastIndex(kept, x.dims);
    const data = new Float64Array(elementCount(kept)).fill(start);
    const counts = new Float64Array(data.length);
    for (let i = 0; i < x.data.length; i++) {
      const at = index[i]!;
      data[at] = add(data[at]!, x.data[i]!);
      counts[at]!++;
    }
    const round = rounder(x.type);
    const dims = keepDims ? kept : x.dims.filter((_, axis) => !reduced.has(axis));
    return [
      numeric(
        x.type,
        dims,
        data.map((total, i) => round(finish(total, counts[i]!))),
      ),
    ];
  };

const same = (total: number): number => total;

function reshaped(x: NumericTensor, dims: readonly number[]): readonly NumericTensor[] | null {
  return elementCount(dims) === x.data.length ? [numeric(x.type, dims, x.data)] : null;
}

function gather(x: NumericTensor, indices: NumericTensor, axis: number): NumericTensor | null {
  const before = elementCount(x.dims.slice(0, axis));
  const size = x.dims[axis]!;
  const after = elementCount(x.dims.slice(axis + 1));
  const dims = [...x.dims.slice(0, axis), ...indices.dims, ...x.dims.slice(axis + 1)];
  if (elementCount(dims) > MAX_ELEMENTS) return null;
  const data = new Float64Array(elementCount(dims));
  let at = 0;
  for (let b = 0; b < before; b++) {
    for (const raw of indices.data) {
      const index = raw < 0 ? raw + size : raw;
      if (!(index >= 0 && index < size)) return null;
      const from = (b * size + index) * after;
      data.set(x.data.subarray(from, from + after), at);
      at += after;
    }
  }
  return numeric(x.type, dims, data);
}

function scatterNd(x: NumericTensor, indices: NumericTensor, updates: NumericTensor): NumericTensor | null {
  const depth = indices.dims.at(-1) ?? 0;
  const step = strides(x.dims);
  const block = elementCount(x.dims.slice(depth));
  const data = Float64Array.from(x.data);
  const count = depth === 0 ? 0 : indices.data.length / depth;
  for (let i = 0; i < count; i++) {
    let at = 0;
    for (let axis = 0; axis < depth; axis++) {
      const raw = indices.data[i * depth + axis]!;
      at += (raw < 0 ? raw + x.dims[axis]! : raw) * step[axis]!;
    }
    if (at < 0 || at + block > data.length) return null;
    data.set(updates.data.subarray(i * block, (i + 1) * block), at);
  }
  return numeric(x.type, x.dims, data);
}

function matMul(a: NumericTensor, b: NumericTensor): NumericTensor | null {
  if (a.dims.length < 2 || b.dims.length < 2) return null;
  const [m, k] = [a.dims.at(-2)!, a.dims.at(-1)!];
  const n = b.dims.at(-1)!;
  const batch = broadcastDims(a.dims.slice(0, -2), b.dims.slice(0, -2));
  if (batch === null || b.dims.at(-2) !== k) return null;
  const dims = [...batch, m, n];
  if (elementCount(dims) * k > MAX_ELEMENTS) return null;
  const left = broadcastIndex(a.dims.slice(0, -2), batch);
  const right = broadcastIndex(b.dims.slice(0, -2), batch);
  const data = new Float64Array(elementCount(dims));
  for (let batchIndex = 0; batchIndex < left.length; batchIndex++) {
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        let sum = 0;
        for (let c = 0; c < k; c++) {
          sum += a.data[(left[batchIndex]! * m + i) * k + c]! * b.data[(right[batchIndex]! * k + c) * n + j]!;
        }
        data[(batchIndex * m + i) * n + j] = sum;
      }
    }
  }
  return numeric(a.type, dims, data);
}

const EVALUATORS: Readonly<Record<string, Evaluator>> = {
  Identity: ({ inputs: [x] }) => (x ? [x] : null),
  Dropout: ({ inputs: [x] }) => (x ? [x] : null),
  Add: binary((a, b) => a + b),
  Sub: binary((a, b) => a - b),
  Mul: binary((a, b) => a * b),
  Div: binary((a, b, integer) => (integer ? Math.trunc(a / b) : a / b)),
  Pow: binary((a, b) => a ** b),
  Mod: ({ node, ...rest }) =>
    binary((a, b) => modulo(a, b, intAttribute(node, 'fmod', 0) === 0))({ node, ...rest }),
  Max: variadic(Math.max),
  Min: variadic(Math.min),
  Sum: variadic((a, b) => a + b),
  And: binary((a, b) => flag(a !== 0 && b !== 0), DataType.bool),
  Or: binary((a, b) => flag(a !== 0 || b !== 0), DataType.bool),
  Xor: binary((a, b) => flag((a !== 0) !== (b !== 0)), DataType.bool),
  Equal: binary((a, b) => flag(a === b), DataType.bool),
  Greater: binary((a, b) => flag(a > b), DataType.bool),
  GreaterOrEqual: binary((a, b) => flag(a >= b), DataType.bool),
  Less: binary((a, b) => flag(a < b), DataType.bool),
  LessOrEqual: binary((a, b) => flag(a <= b), DataType.bool),
  BitwiseAnd: binary((a, b) => a & b),
  BitwiseOr: binary((a, b) => a | b),
  Not: unary((x) => flag(x === 0), DataType.bool),
  IsNaN: unary((x) => flag(Number.isNaN(x)), DataType.bool),
  IsInf: ({ node, inputs: [x] }) => {
    if (!x) return null;
    const up = intAttribute(node, 'detect_positive', 1) === 1;
    const down = intAttribute(node, 'detect_negative', 1) === 1;
    return [
      numeric(
        DataType.bool,
        x.dims,
        x.data.map((v) => flag((up && v === Infinity) || (down && v === -Infinity))),
      ),
    ];
  },
  Neg: unary((x) => -x),
  Abs: unary(Math.abs),
  Sign: unary(Math.sign),
  Sqrt: unary(Math.sqrt),
  Reciprocal: unary((x) => 1 / x),
  Exp: unary(Math.exp),
  Log: unary(Math.log),
  Sin: unary(Math.sin),
  Cos: unary(Math.cos),
  Tanh: unary(Math.tanh),
  Sigmoid: unary((x) => 1 / (1 + Math.exp(-x))),
  Relu: unary((x) => Math.max(0, x)),
  Floor: unary(Math.floor),
  Ceil: unary(Math.ceil),
  Round: unary((x) => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x))),
  Softplus: unary((x) => Math.log1p(Math.exp(x))),
  Clip: ({ node, inputs: [x, low, high] }) => {
    if (!x) return null;
    const min = low?.data[0] ?? floatAttribute(node, 'min', -Infinity);
    const max = high?.data[0] ?? floatAttribute(node, 'max', Infinity);
    return [
      numeric(
        x.type,
        x.dims,
        x.data.map((value) => Math.min(Math.max(value, min), max)),
      ),
    ];
  },
  Cast: ({ node, inputs: [x] }) => {
    if (!x) return null;
    const type = intAttribute(node, 'to', 0);
    if (type === DataType.string) return null;
    const round = rounder(type);
    return [numeric(type, x.dims, x.data.map(round))];
  },
  CastLike: ({ inputs: [x, like] }) => {
    if (!x || !like) return null;
    const round = rounder(like.type);
    return [numeric(like.type, x.dims, x.data.map(round))];
  },
  Where: ({ inputs: [condition, a, b] }) => {
    if (!condition || !a || !b) return null;
    const dims = broadcastDims(condition.dims, a.dims, b.dims);
    if (dims === null || elementCount(dims) > MAX_ELEMENTS) return null;
    const [c, x, y] = [expandTo(condition, dims), expandTo(a, dims), expandTo(b, dims)];
    return [
      numeric(
        a.type,
        dims,
        x.data.map((value, i) => (c.data[i] !== 0 ? value : y.data[i]!)),
      ),
    ];
  },
  Gather: ({ node, inputs: [x, indices] }) => {
    if (!x || !indices) return null;
    const out = gather(x, indices, axisAttribute(node, 0, x.dims.length));
    return out === null ? null : [out];
  },
  GatherND: ({ node, inputs: [x, indices] }) => {
    if (!x || !indices || intAttribute(node, 'batch_dims', 0) !== 0) return null;
    const depth = indices.dims.at(-1) ?? 0;
    if (depth === 0) return null;
    const step = strides(x.dims);
    const block = elementCount(x.dims.slice(depth));
    const count = indices.data.length / depth;
    const dims = [...indices.dims.slice(0, -1), ...x.dims.slice(depth)];
    if (count * block > MAX_ELEMENTS) return null;
    const data = new Float64Array(count * block);
    for (let i = 0; i < count; i++) {
      let at = 0;
      for (let axis = 0; axis < depth; axis++) {
        const raw = indices.data[i * depth + axis]!;
        at += (raw < 0 ? raw + x.dims[axis]! : raw) * step[axis]!;
      }
      data.set(x.data.subarray(at, at + block), i * block);
    }
    return [numeric(x.type, dims, data)];
  },
  GatherElements: ({ node, inputs: [x, indices] }) => {
    if (!x || !indices) return null;
    const axis = axisAttribute(node, 0, x.dims.length);
    const step = strides(x.dims);
    const own = strides(indices.dims);
    const data = new Float64Array(indices.data.length);
    for (let i = 0; i < data.length; i++) {
      let at = 0;
      let rest = i;
      for (let a = 0; a < own.length; a++) {
        const coordinate = Math.floor(rest / own[a]!);
        rest -= coordinate * own[a]!;
        const index = indices.data[i]!;
        at += (a === axis ? (index < 0 ? index + x.dims[axis]! : index) : coordinate) * step[a]!;
      }
      data[i] = x.data[at]!;
    }
    return [numeric(x.type, indices.dims, data)];
  },
  Concat: ({ node, inputs }) => {
    const parts = inputs.filter((part): part is NumericTensor => part !== null);
    const first = parts[0];
    if (first === undefined || parts.length !== inputs.length) return null;
    const axis = axisAttribute(node, 0, first.dims.length);
    const fits = ({ dims }: NumericTensor): boolean =>
      dims.length === first.dims.length && dims.every((dim, at) => at === axis || dim === first.dims[at]);
    if (!parts.every(fits)) return null;
    const dims = [...first.dims];
    dims[axis] = parts.reduce((sum, part) => sum + (part.dims[axis] ?? 0), 0);
    const count = elementCount(dims);
    if (count > MAX_ELEMENTS) return null;
    const data = new Float64Array(count);
    const before = elementCount(dims.slice(0, axis));
    let at = 0;
    for (let b = 0; b < before; b++) {
      for (const part of parts) {
        const block = part.data.length / before;
        data.set(part.data.subarray(b * block, (b + 1) * block), at);
        at += block;
      }
    }
    return [numeric(first.type, dims, data)];
  },
  Unsqueeze: ({ node, inputs: [x, axesInput] }) => {
    if (!x) return null;
    const count = axesInput ? axesInput.data.length : (intsAttribute(node, 'axes')?.length ?? 0);
    const axes = axesOf(node, x.dims.length + count, axesInput);
    if (axes === null) return null;
    const dims = [...x.dims];
    for (const axis of axes.sort((a, b) => a - b)) dims.splice(axis, 0, 1);
    return reshaped(x, dims);
  },
  Squeeze: ({ node, inputs: [x, axesInput] }) => {
    if (!x) return null;
    const axes = axesOf(node, x.dims.length, axesInput);
    return reshaped(
      x,
      x.dims.filter((dim, axis) => (axes === null ? dim !== 1 : !axes.includes(axis))),
    );
  },
  Flatten: ({ node, inputs: [x] }) => {
    if (!x) return null;
    const axis = flattenAxis(node, x.dims.length);
    return reshaped(x, [elementCount(x.dims.slice(0, axis)), elementCount(x.dims.slice(axis))]);
  },
  Reshape: ({ node, inputs: [x, shape] }) => {
    const target = shape?.data ?? intsAttribute(node, 'shape');
    if (!x || !target) return null;
    const dims = reshapeDims(x.dims, target, intAttribute(node, 'allowzero', 0) === 1);
    return dims === null ? null : reshaped(x, dims);
  },
  Transpose: ({ node, inputs: [x] }) => {
    if (!x) return null;
    const perm = permutation(node, x.dims.length);
    const step = strides(x.dims);
    const dims = perm.map((axis) => x.dims[axis]!);
    return [
      numeric(
        x.type,
        dims,
        gatherView(
          x.data,
          dims,
          perm.map((axis) => step[axis]!),
          0,
        ),
      ),
    ];
  },
  Slice: ({ node, inputs: [x, ...bounds] }) => {
    if (!x) return null;
    const axes = sliceAxes(node, x.dims, [x, ...bounds]);
    if (axes === null) return null;
    const step = strides(x.dims);
    const dims = [...x.dims];
    let offset = 0;
    for (const slice of axes) {
      offset += slice.start * step[slice.axis]!;
      dims[slice.axis] = slice.count;
      step[slice.axis]! *= slice.step;
    }
    return [numeric(x.type, dims, gatherView(x.data, dims, step, offset))];
  },
  Split: ({ node, inputs: [x, given] }) => {
    if (!x) return null;
    const axis = axisAttribute(node, 0, x.dims.length);
    const step = strides(x.dims);
    let start = 0;
    return splitSizes(node, x.dims[axis]!, given, node.outputs.length).map((size) => {
      const dims = [...x.dims];
      dims[axis] = size;
      const part = numeric(x.type, dims, gatherView(x.data, dims, step, start * step[axis]!));
      start += size;
      return part;
    });
  },
  Expand: ({ inputs: [x, shape] }) => {
    if (!x || !shape) return null;
    const dims = broadcastDims(x.dims, Array.from(shape.data));
    return dims === null || elementCount(dims) > MAX_ELEMENTS ? null : [expandTo(x, dims)];
  },
  Tile: ({ inputs: [x, repeats] }) => {
    if (!x || !repeats) return null;
    const dims = x.dims.map((dim, axis) => dim * repeats.data[axis]!);
    if (elementCount(dims) > MAX_ELEMENTS) return null;
    const split = x.dims.flatMap((dim, axis) => [repeats.data[axis]!, dim]);
    const ones = x.dims.flatMap((dim) => [1, dim]);
    return [numeric(x.type, dims, expandTo(numeric(x.type, ones, x.data), split).data)];
  },
  Range: ({ inputs: [start, limit, delta] }) => {
    if (!start || !limit || !delta) return null;
    const [from, step] = [start.data[0]!, delta.data[0]!];
    const count = Math.max(0, Math.ceil((limit.data[0]! - from) / step));
    if (!(count <= MAX_ELEMENTS)) return null;
    return [
      numeric(
        start.type,
        [count],
        Float64Array.from({ length: count }, (_, i) => from + i * step),
      ),
    ];
  },
  Trilu: ({ node, inputs: [x, kInput] }) => {
    if (!x || x.dims.length < 2) return null;
    const k = kInput?.data[0] ?? 0;
    const upper = intAttribute(node, 'upper', 1) === 1;
    const columns = x.dims.at(-1)!;
    const rows = x.dims.at(-2)!;
    const keep = (index: number): boolean => {
      const column = index % columns;
      const row = Math.floor(index / columns) % rows;
      return upper ? column - row >= k : column - row <= k;
    };
    return [
      numeric(
        x.type,
        x.dims,
        x.data.map((value, i) => (keep(i) ? value : 0)),
      ),
    ];
  },
  CumSum: ({ node, inputs: [x, axisInput] }) => {
    if (!x || !axisInput) return null;
    const raw = axisInput.data[0]!;
    const axis = raw < 0 ? raw + x.dims.length : raw;
    const exclusive = intAttribute(node, 'exclusive', 0) === 1;
    if (intAttribute(node, 'reverse', 0) === 1) return null;
    const step = strides(x.dims)[axis]!;
    const size = x.dims[axis]!;
    const data = Float64Array.from(x.data);
    for (let i = 0; i < data.length; i++) {
      const at = Math.floor(i / step) % size;
      data[i] =
        at === 0
          ? exclusive
            ? 0
            : x.data[i]!
          : data[i - step]! + (exclusive ? x.data[i - step]! : x.data[i]!);
    }
    return [numeric(x.type, x.dims, data)];
  },
  ReduceSum: reduce(0, (total, value) => total + value, same),
  ReduceMean: reduce(
    0,
    (total, value) => total + value,
    (total, count) => total / count,
  ),
  ReduceMax: reduce(-Infinity, Math.max, same),
  ReduceMin: reduce(Infinity, Math.min, same),
  ReduceProd: reduce(1, (total, value) => total * value, same),
  EyeLike: ({ node, inputs: [x] }) => {
    if (!x || x.dims.length !== 2) return null;
    const k = intAttribute(node, 'k', 0);
    const type = intAttribute(node, 'dtype', x.type);
    const columns = x.dims[1]!;
    return [
      numeric(
        type,
        x.dims,
        x.data.map((_, i) => flag((i % columns) - Math.floor(i / columns) === k)),
      ),
    ];
  },
  NonZero: ({ inputs: [x] }) => {
    if (!x) return null;
    const found: number[] = [];
    x.data.forEach((value, i) => {
      if (value !== 0) found.push(i);
    });
    const step = strides(x.dims);
    const data = step.flatMap((s, axis) => found.map((i) => Math.floor(i / s) % x.dims[axis]!));
    return [numeric(DataType.int64, [x.dims.length, found.length], data)];
  },
  ScatterND: ({ node, inputs: [x, indices, updates] }) => {
    if (!x || !indices || !updates || textAttribute(node, 'reduction', 'none') !== 'none') return null;
    const out = scatterNd(x, indices, updates);
    return out === null ? null : [out];
  },
  MatMul: ({ inputs: [a, b] }) => {
    const out = a && b ? matMul(a, b) : null;
    return out === null ? null : [out];
  },
  Pad: ({ node, inputs: [x, padsInput, valueInput] }) => {
    const pads = padsInput ? Array.from(padsInput.data) : intsAttribute(node, 'pads');
    if (
      !x ||
      pads === null ||
      pads.length !== 2 * x.dims.length ||
      textAttribute(node, 'mode', 'constant') !== 'constant'
    )
      return null;
    const rank = x.dims.length;
    const dims = x.dims.map((dim, axis) => dim + pads[axis]! + pads[rank + axis]!);
    if (pads.some((pad) => pad < 0) || elementCount(dims) > MAX_ELEMENTS) return null;
    const data = new Float64Array(elementCount(dims)).fill(valueInput?.data[0] ?? 0);
    const from = strides(x.dims);
    const to = strides(dims);
    for (let i = 0; i < x.data.length; i++) {
      let at = 0;
      for (let axis = 0; axis < rank; axis++)
        at += ((Math.floor(i / from[axis]!) % x.dims[axis]!) + pads[axis]!) * to[axis]!;
      data[at] = x.data[i]!;
    }
    return [numeric(x.type, dims, data)];
  },
  OneHot: ({ node, inputs: [indices, depth, values] }) => {
    if (!indices || !depth || !values || intAttribute(node, 'axis', -1) !== -1) return null;
    const size = depth.data[0]!;
    const data = Array.from(indices.data).flatMap((raw) =>
      Array.from({ length: size }, (_, j) => values.data[(raw < 0 ? raw + size : raw) === j ? 1 : 0]!),
    );
    return [numeric(values.type, [...indices.dims, size], data)];
  },
};
