/**
 * Shapes, operator by operator: what each does to the shapes of its inputs. Sizes are numbers here; symbolic dimensions are
 * handled by working the whole graph out for several choices of the symbols (see environment.ts).
 */
import { elementCount } from '../onnx/tensor.js';
import { agreeOnLength, contribRules } from './contrib-shapes.js';
import { parseEquation } from './einsum.js';
import {
  attribute,
  axisAttribute,
  checkedAxis,
  flattenAxis,
  type GraphNode,
  intAttribute,
  intsAttribute,
  permutation,
  textAttribute,
} from './node.js';
import { axesOf, reshapeDims, sliceAxes, splitSizes } from './operator-arguments.js';
import { SEQUENCE_RULES } from './sequence-shapes.js';
import { broadcast, first, matMulDims, type Dims, type ShapeContext, type ShapeRule } from './shape-rule.js';

/** No runtime takes tensors of more dimensions; a shape tensor that asks for them is hostile. */
const MAX_RANK = 64;

export function inferShapes(context: ShapeContext): readonly (Dims | null)[] | null {
  const { node } = context;
  const rule = node.domain === '' ? RULES[node.opType] : CONTRIB_RULES[`${node.domain}:${node.opType}`];
  if (rule === undefined) return null;
  return rule(context)?.map((dims) => (dims !== null && dims.length > MAX_RANK ? null : dims)) ?? null;
}

/** Dimensions of which only the number is known; `null` when even that is not, or is no rank of a tensor. */
function openDims(context: ShapeContext, rank: number | undefined): Dims | null {
  if (rank === undefined || !(rank >= 0 && rank <= MAX_RANK)) return null;
  return Array.from({ length: rank }, () => context.fresh());
}

const elementwise: ShapeRule = (context) => [
  broadcast(
    context,
    context.node.inputs.map((_, i) => context.dims(i)),
  ),
];

const reduction: ShapeRule = (context) => {
  const x = context.dims(0);
  if (x === null) return [null];
  const { node } = context;
  const fromInput = node.inputs[1] !== undefined && node.inputs[1] !== '';
  const given = fromInput ? context.value(1) : null;
  if (fromInput && given === null) return [null];
  const axes = axesOf(node, x.length, given);
  const all = axes === null || axes.length === 0;
  if (all && intAttribute(node, 'noop_with_empty_axes', 0) === 1) return [x];
  const keep = intAttribute(node, 'keepdims', 1) === 1;
  const isReduced = (axis: number): boolean => all || axes.includes(axis);
  return [keep ? x.map((dim, axis) => (isReduced(axis) ? 1 : dim)) : x.filter((_, axis) => !isReduced(axis))];
};

const argReduction: ShapeRule = (context) => {
  const x = context.dims(0);
  if (x === null) return [null];
  const axis = axisAttribute(context.node, 0, x.length);
  const keep = intAttribute(context.node, 'keepdims', 1) === 1;
  return [keep ? x.map((dim, at) => (at === axis ? 1 : dim)) : x.filter((_, at) => at !== axis)];
};

interface Window2d {
  readonly kernel: Dims;
  readonly strides: Dims;
  readonly pads: Dims;
  readonly dilations: Dims;
  readonly autoPad: string;
  readonly ceil: boolean;
}

function windowOf(node: GraphNode, kernel: Dims): Window2d {
  const rank = kernel.length;
  return {
    kernel,
    strides: intsAttribute(node, 'strides') ?? kernel.map(() => 1),
    pads: intsAttribute(node, 'pads') ?? new Array<number>(2 * rank).fill(0),
    dilations: intsAttribute(node, 'dilations') ?? kernel.map(() => 1),
    autoPad: textAttribute(node, 'auto_pad', 'NOTSET'),
    ceil: intAttribute(node, 'ceil_mode', 0) === 1,
  };
}

function slide(spatial: Dims, window: Window2d): number[] {
  const rank = spatial.length;
  return spatial.map((dim, axis) => {
    const stride = window.strides[axis] ?? 1;
    if (window.autoPad.startsWith('SAME')) return Math.ceil(dim / stride);
    const reach = (window.dilations[axis] ?? 1) * (window.kernel[axis]! - 1) + 1;
    const padded =
      window.autoPad === 'VALID' ? dim : dim + (window.pads[axis] ?? 0) + (window.pads[rank + axis] ?? 0);
    const steps = (padded - reach) / stride;
    return Math.max(0, (window.ceil ? Math.ceil(steps) : Math.floor(steps)) + 1);
  });
}

const pool: ShapeRule = (context) => {
  const x = context.dims(0);
  const kernel = intsAttribute(context.node, 'kernel_shape');
  if (x === null || kernel === null) return [null];
  const out = [...x.slice(0, 2), ...slide(x.slice(2), windowOf(context.node, kernel))];
  return context.node.outputs.map(() => out);
};

const conv: ShapeRule = (context) => {
  const x = context.dims(0);
  const w = context.dims(1);
  if (x === null || w === null) return [null];
  return [[x[0]!, w[0]!, ...slide(x.slice(2), windowOf(context.node, w.slice(2)))]];
};

const convTranspose: ShapeRule = (context) => {
  const x = context.dims(0);
  const w = context.dims(1);
  if (x === null || w === null) return [null];
  const { node } = context;
  const window = windowOf(node, w.slice(2));
  const outputPadding = intsAttribute(node, 'output_padding') ?? [];
  const fixed = intsAttribute(node, 'output_shape');
  const rank = x.length - 2;
  const spatial = x.slice(2).map((dim, axis) => {
    if (fixed !== null && fixed.length > 0) return fixed[axis]!;
    const reach = (window.dilations[axis] ?? 1) * (window.kernel[axis]! - 1) + 1;
    const pads = (window.pads[axis] ?? 0) + (window.pads[rank + axis] ?? 0);
    return (window.strides[axis] ?? 1) * (dim - 1) + (outputPadding[axis] ?? 0) + reach - pads;
  });
  return [[x[0]!, w[1]! * intAttribute(node, 'group', 1), ...spatial]];
};

const topK: ShapeRule = (context) => {
  const x = context.dims(0);
  if (x === null) return null;
  const axis = axisAttribute(context.node, -1, x.length);
  const k = context.value(1)?.data[0] ?? context.fresh();
  const out = x.map((dim, at) => (at === axis ? k : dim));
  return [out, out];
};

const recurrent: ShapeRule = (context) => {
  const x = context.dims(0);
  const hidden = intAttribute(context.node, 'hidden_size', 0);
  if (x === null || hidden === 0 || intAttribute(context.node, 'layout', 0) === 1) return null;
  const directions = textAttribute(context.node, 'direction', 'forward') === 'bidirectional' ? 2 : 1;
  const state = [directions, x[1]!, hidden];
  return [[x[0]!, directions, x[1]!, hidden], state, state];
};

const einsum: ShapeRule = (context) => {
  const shapes = context.node.inputs.map((_, i) => context.dims(i));
  if (shapes.some((dims) => dims === null)) return [null];
  const known = shapes as Dims[];
  const equation = parseEquation(
    textAttribute(context.node, 'equation', ''),
    known.map((dims) => dims.length),
  );
  if (equation === null) return [null];
  const sizes = new Map<string, number>();
  equation.inputs.forEach((letters, input) =>
    letters.forEach((letter, axis) => {
      const dim = known[input]![axis]!;
      const before = sizes.get(letter);
      if (before !== undefined && before !== 1 && dim !== 1 && dim !== before) context.mismatch(before, dim);
      if (before === undefined || before === 1) sizes.set(letter, dim);
    }),
  );
  return [equation.output.map((letter) => sizes.get(letter) ?? context.fresh())];
};

const resize: ShapeRule = (context) => {
  const x = context.dims(0);
  if (x === null) return [null];
  const { node } = context;
  const at = node.opType === 'Upsample' ? 1 : node.inputs.length > 2 || context.opset >= 11 ? 2 : 1;
  const sizes = node.inputs[3] !== undefined && node.inputs[3] !== '' ? context.value(3) : null;
  const axes = intsAttribute(node, 'axes') ?? x.map((_, axis) => axis);
  const out = [...x];
  if (sizes !== null && sizes.data.length > 0)
    axes.forEach((axis, i) => (out[checkedAxis(context.node, axis, x.length)] = sizes.data[i]!));
  else {
    const scales = context.value(at)?.data ?? attribute(node, 'scales')?.floats;
    if (scales === undefined || scales.length === 0) return [null];
    axes.forEach((axis, i) => {
      const place = checkedAxis(context.node, axis, x.length);
      out[place] = Math.floor(x[place]! * scales[i]!);
    });
  }
  return [out];
};

const RULES: Readonly<Record<string, ShapeRule>> = {
  ...SEQUENCE_RULES,
  ...Object.fromEntries(
    [
      'Identity Dropout Cast CastLike Relu LeakyRelu PRelu Elu Selu Celu Gelu HardSigmoid HardSwish Mish Softplus Softsign',
      'ThresholdedRelu Sigmoid Tanh Erf Exp Log Sqrt Reciprocal Neg Abs Sign Floor Ceil Round Sin Cos Tan Asin Acos Atan',
      'Sinh Cosh Asinh Acosh Atanh Not IsNaN IsInf Clip Softmax LogSoftmax Hardmax LayerNormalization',
      'BatchNormalization InstanceNormalization GroupNormalization RMSNormalization LpNormalization MeanVarianceNormalization',
      'LRN CumSum Trilu EyeLike ScatterND ScatterElements Scatter QuantizeLinear DequantizeLinear ReverseSequence Shrink',
      'SimplifiedLayerNormalization Bernoulli RandomNormalLike RandomUniformLike BitwiseNot RotaryEmbedding SequenceConstruct Swish',
    ]
      .join(' ')
      .split(' ')
      .map((opType) => [opType, first]),
  ),
  ...Object.fromEntries(
    [
      'Add Sub Mul Div Pow Mod Max Min Sum Mean And Or Xor Equal Greater GreaterOrEqual Less LessOrEqual Where',
      'BitwiseAnd BitwiseOr BitwiseXor BitShift',
    ]
      .join(' ')
      .split(' ')
      .map((opType) => [opType, elementwise]),
  ),
  ...Object.fromEntries(
    'ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceSumSquare'
      .split(' ')
      .map((opType) => [opType, reduction]),
  ),
  PRelu: first,
  ArgMax: argReduction,
  ArgMin: argReduction,
  MatMul: (context) => [matMulDims(context)],
  MatMulInteger: (context) => [matMulDims(context)],
  QLinearMatMul: (context) => {
    const shifted: ShapeContext = {
      node: context.node,
      opset: context.opset,
      dims: (input) => context.dims(input === 1 ? 3 : input),
      value: (input) => context.value(input),
      fresh: () => context.fresh(),
      mismatch: (a, b) => context.mismatch(a, b),
    };
    return [matMulDims(shifted)];
  },
  DynamicQuantizeLinear: (context) => [context.dims(0), [], []],
  Gemm: (context) => [
    matMulDims(
      context,
      intAttribute(context.node, 'transA', 0) === 1,
      intAttribute(context.node, 'transB', 0) === 1,
    ),
  ],
  Einsum: einsum,
  Conv: conv,
  ConvInteger: conv,
  ConvTranspose: convTranspose,
  MaxPool: pool,
  AveragePool: pool,
  LpPool: pool,
  GlobalAveragePool: (context) => [context.dims(0)?.map((dim, axis) => (axis < 2 ? dim : 1)) ?? null],
  GlobalMaxPool: (context) => [context.dims(0)?.map((dim, axis) => (axis < 2 ? dim : 1)) ?? null],
  Resize: resize,
  Upsample: resize,
  TopK: topK,
  LSTM: recurrent,
  GRU: recurrent,
  RNN: recurrent,
  Shape: (context) => {
    const x = context.dims(0);
    if (x === null) return [null];
    const clamp = (value: number): number =>
      Math.min(Math.max(value < 0 ? value + x.length : value, 0), x.length);
    const start = clamp(intAttribute(context.node, 'start', 0));
    return [[Math.max(0, clamp(intAttribute(context.node, 'end', x.length)) - start)]];
  },
  Size: () => [[]],
  Reshape: (context) => {
    const x = context.dims(0);
    const target = context.value(1)?.data ?? intsAttribute(context.node, 'shape');
    if (!target) {
      const rank = context.dims(1)?.[0];
      return [openDims(context, rank)];
    }
    if (x === null) return [Array.from(target, (dim) => (dim > 0 ? dim : context.fresh()))];
    const out = reshapeDims(x, target, intAttribute(context.node, 'allowzero', 0) === 1);
    if (out !== null) return [out];
    const wanted = Array.from(target, (dim, axis) => (dim === 0 ? (x[axis] ?? 1) : dim));
    context.mismatch(elementCount(x), wanted.includes(-1) ? NaN : elementCount(wanted));
    return [Array.from(target, (dim) => (dim > 0 ? dim : context.fresh()))];
  },
  Transpose: (context) => {
    const x = context.dims(0);
    if (x === null) return [null];
    return [permutation(context.node, x.length).map((axis) => x[axis]!)];
  },
  Flatten: (context) => {
    const x = context.dims(0);
    if (x === null) return [null];
    const axis = flattenAxis(context.node, x.length);
    return [[elementCount(x.slice(0, axis)), elementCount(x.slice(axis))]];
  },
  Unsqueeze: (context) => {
    const x = context.dims(0);
    const fromInput = context.node.inputs[1] !== undefined && context.node.inputs[1] !== '';
    const given = fromInput ? context.value(1) : null;
    if (x === null || (fromInput && given === null)) return [null];
    const count = given?.data.length ?? intsAttribute(context.node, 'axes')?.length ?? 0;
    const axes = axesOf(context.node, x.length + count, given) ?? [];
    const out = [...x];
    for (const axis of axes.sort((a, b) => a - b)) out.splice(axis, 0, 1);
    return [out];
  },
  Squeeze: (context) => {
    const x = context.dims(0);
    const fromInput = context.node.inputs[1] !== undefined && context.node.inputs[1] !== '';
    const given = fromInput ? context.value(1) : null;
    if (x === null || (fromInput && given === null)) return [null];
    const axes = axesOf(context.node, x.length, given);
    return [x.filter((dim, axis) => (axes === null ? dim !== 1 : !axes.includes(axis)))];
  },
  Concat: (context) => {
    const shapes = context.node.inputs.map((_, i) => context.dims(i));
    if (shapes.length === 0 || shapes.some((dims) => dims === null)) return [null];
    const known = shapes as Dims[];
    const axis = axisAttribute(context.node, 0, known[0]!.length);
    return [
      known[0]!.map((dim, at) => {
        if (at === axis) return known.reduce((sum, dims) => sum + (dims[axis] ?? 0), 0);
        for (const dims of known)
          if (dims[at] !== undefined && dims[at] !== dim) context.mismatch(dim, dims[at]);
        return dim;
      }),
    ];
  },
  Split: (context) => {
    const x = context.dims(0);
    if (x === null) return null;
    const { node } = context;
    const axis = axisAttribute(node, 0, x.length);
    const sizes = splitSizes(node, x[axis]!, context.value(1), node.outputs.length);
    return sizes.map((size) => x.map((dim, at) => (at === axis ? size : dim)));
  },
  Slice: (context) => {
    const x = context.dims(0);
    if (x === null) return [null];
    const inputs = context.node.inputs.map((name, i) => (name === '' || i === 0 ? null : context.value(i)));
    const known = context.node.inputs.every((name, i) => i === 0 || name === '' || inputs[i] !== null);
    const axes = known ? sliceAxes(context.node, x, inputs) : null;
    const out = [...x];
    if (axes !== null) for (const slice of axes) out[slice.axis] = slice.count;
    else {
      const touched = inputs[3] ? Array.from(inputs[3].data) : x.map((_, axis) => axis);
      for (const axis of touched) out[checkedAxis(context.node, axis, x.length)] = context.fresh();
    }
    return [out];
  },
  Gather: (context) => {
    const x = context.dims(0);
    const indices = context.dims(1);
    if (x === null || indices === null) return [null];
    const axis = axisAttribute(context.node, 0, x.length);
    return [[...x.slice(0, axis), ...indices, ...x.slice(axis + 1)]];
  },
  GatherElements: (context) => [context.dims(1)],
  GatherND: (context) => {
    const x = context.dims(0);
    const indices = context.dims(1);
    if (x === null || indices === null) return [null];
    const batch = intAttribute(context.node, 'batch_dims', 0);
    return [[...indices.slice(0, -1), ...x.slice(batch + indices.at(-1)!)]];
  },
  Expand: (context) => {
    const shape = context.value(1);
    const x = context.dims(0);
    if (x === null) return [shape === null ? null : Array.from(shape.data)];
    if (shape === null) {
      const rank = context.dims(1)?.[0];
      if (rank === undefined || !(rank <= MAX_RANK)) return [null];
      const own = [...new Array<number>(Math.max(0, rank - x.length)).fill(1), ...x];
      return [own.map((dim) => (dim === 1 ? context.fresh() : dim))];
    }
    return [broadcast(context, [x, Array.from(shape.data)])];
  },
  Tile: (context) => {
    const x = context.dims(0);
    const repeats = context.value(1);
    if (x === null) return [null];
    return [x.map((dim, axis) => (repeats === null ? context.fresh() : dim * repeats.data[axis]!))];
  },
  Pad: (context) => {
    const x = context.dims(0);
    const pads = context.value(1)?.data ?? intsAttribute(context.node, 'pads');
    if (x === null || !pads) return [x === null ? null : x.map(() => context.fresh())];
    const axes = context.value(3);
    if (axes) {
      const out = [...x];
      axes.data.forEach(
        (axis, i) =>
          (out[checkedAxis(context.node, axis, x.length)]! += pads[i]! + pads[axes.data.length + i]!),
      );
      return [out];
    }
    return [x.map((dim, axis) => dim + pads[axis]! + pads[x.length + axis]!)];
  },
  Range: (context) => {
    const [start, limit, delta] = [context.value(0), context.value(1), context.value(2)];
    if (!start || !limit || !delta) return [[context.fresh()]];
    return [[Math.max(0, Math.ceil((limit.data[0]! - start.data[0]!) / delta.data[0]!))]];
  },
  ConstantOfShape: (context) => {
    const shape = context.value(0);
    if (shape !== null) return [Array.from(shape.data)];
    const rank = context.dims(0)?.[0];
    return [openDims(context, rank)];
  },
  NonZero: (context) => {
    const x = context.dims(0);
    return [x === null ? null : [x.length, context.fresh()]];
  },
  OneHot: (context) => {
    const x = context.dims(0);
    const depth = context.value(1)?.data[0] ?? context.fresh();
    if (x === null) return [null];
    const axis = axisAttribute(context.node, -1, x.length + 1);
    return [[...x.slice(0, axis), depth, ...x.slice(axis)]];
  },
  DepthToSpace: (context) => {
    const x = context.dims(0);
    const block = intAttribute(context.node, 'blocksize', 1);
    return [x === null ? null : [x[0]!, x[1]! / block ** 2, x[2]! * block, x[3]! * block]];
  },
  SpaceToDepth: (context) => {
    const x = context.dims(0);
    const block = intAttribute(context.node, 'blocksize', 1);
    return [x === null ? null : [x[0]!, x[1]! * block ** 2, x[2]! / block, x[3]! / block]];
  },
  RandomNormal: (context) => [intsAttribute(context.node, 'shape')],
  RandomUniform: (context) => [intsAttribute(context.node, 'shape')],
  Attention: (context) => {
    const q = context.dims(0);
    const k = context.dims(1);
    const v = context.dims(2);
    if (q === null || k === null || v === null) return null;
    const past =
      context.node.inputs[4] !== undefined && context.node.inputs[4] !== '' ? context.dims(4) : null;
    const qHeads = intAttribute(context.node, 'q_num_heads', q.length === 4 ? q[1]! : 1);
    const kvHeads = intAttribute(context.node, 'kv_num_heads', k.length === 4 ? k[1]! : 1);
    const valueSize = v.length === 4 ? v[3]! : v[2]! / kvHeads;
    const length = (past?.[2] ?? 0) + (k.length === 4 ? k[2]! : k[1]!);
    const headSize = k.length === 4 ? k[3]! : k[2]! / kvHeads;
    agreeOnLength(context, 3, length, 2);
    return [
      q.length === 4 ? [q[0]!, q[1]!, q[2]!, valueSize] : [q[0]!, q[1]!, qHeads * valueSize],
      [q[0]!, kvHeads, length, headSize],
      [q[0]!, kvHeads, length, valueSize],
      [q[0]!, qHeads, q.length === 4 ? q[2]! : q[1]!, length],
    ];
  },
};

const CONTRIB_RULES = contribRules(RULES);
