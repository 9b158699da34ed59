/** Shapes of the operators outside the standard domain: those of com.microsoft and this project's own. */
import { intAttribute, intsAttribute } from './node.js';
import { first, matMulDims, type ShapeContext, type ShapeRule } from './shape-rule.js';

/** A mask of at least `rank` axes must have one entry per key, the past included. */
export function agreeOnLength(context: ShapeContext, input: number, length: number, rank: number): void {
  const mask = context.node.inputs[input] ? context.dims(input) : null;
  const keys = mask !== null && mask.length >= rank ? mask.at(-1)! : length;
  if (keys !== 1 && keys !== length) context.mismatch(keys, length);
}

/** The context with the first axis of an operand moved behind its batch axes where transBatchA, transBatchB ask for that. */
function behindBatch(context: ShapeContext): ShapeContext {
  const { node, opset } = context;
  return {
    node,
    opset,
    dims: (input) => {
      const dims = context.dims(input);
      const moves = intAttribute(node, input === 0 ? 'transBatchA' : 'transBatchB', 0) === 1;
      return dims === null || !moves ? dims : [...dims.slice(1, -1), dims[0]!, dims.at(-1)!];
    },
    value: (input) => context.value(input),
    fresh: () => context.fresh(),
    mismatch: (a, b) => context.mismatch(a, b),
  };
}

/** `[N, C, H, W]`, or `[N, H, W, C]` with channels_last, to `[N, C, H, W]`. */
const blockedInput: ShapeRule = (context) => {
  const dims = context.dims(0);
  if (dims === null || intAttribute(context.node, 'channels_last', 0) === 0) return [dims];
  return [[dims[0]!, dims.at(-1)!, ...dims.slice(1, -1)]];
};

/** `[N, C, H, W]` to the same with as many channels as the attribute says, which channels_last puts behind H and W. */
const blockedOutput: ShapeRule = (context) => {
  const dims = context.dims(0);
  if (dims === null) return [null];
  const channels = intAttribute(context.node, 'channels', dims[1]!);
  const [batch, , ...space] = dims;
  const isLast = intAttribute(context.node, 'channels_last', 0) === 1;
  return [isLast ? [batch!, ...space, channels] : [batch!, channels, ...space]];
};

/** Rules by domain and operator; those of the same shape as a standard operator come from `standard`, keyed by operator. */
export function contribRules(
  standard: Readonly<Record<string, ShapeRule>>,
): Readonly<Record<string, ShapeRule>> {
  return {
    'ort.sigmoid:SigmoidAttention': (context) => standard['Attention']!(context)?.slice(0, 3) ?? null,
    'com.microsoft:FusedMatMul': (context) => [
      matMulDims(
        behindBatch(context),
        intAttribute(context.node, 'transA', 0) === 1,
        intAttribute(context.node, 'transB', 0) === 1,
      ),
    ],
    'com.microsoft:TransposeMatMul': (context) => [
      matMulDims(
        context,
        intAttribute(context.node, 'transA', 0) === 1,
        intAttribute(context.node, 'transB', 0) === 1,
      ),
    ],
    'com.microsoft:FusedGemm': (context) => standard['Gemm']!(context),
    'com.microsoft:FusedConv': standard['Conv']!,
    // ONNX Runtime's blocked layout: channels padded to whole blocks, until ReorderOutput cuts them.
    'com.microsoft.nchwc:ReorderInput': blockedInput,
    'com.microsoft.nchwc:Conv': standard['Conv']!,
    'com.microsoft.nchwc:MaxPool': standard['MaxPool']!,
    'com.microsoft.nchwc:AveragePool': standard['AveragePool']!,
    'com.microsoft.nchwc:GlobalMaxPool': standard['GlobalMaxPool']!,
    'com.microsoft.nchwc:GlobalAveragePool': standard['GlobalAveragePool']!,
    'com.microsoft.nchwc:ReorderOutput': blockedOutput,
    'com.microsoft:BiasGelu': first,
    'com.microsoft:FastGelu': first,
    'com.microsoft:Gelu': first,
    'com.microsoft:QuickGelu': first,
    'com.microsoft:BiasSoftmax': first,
    'com.microsoft:RotaryEmbedding': first,
    'com.microsoft:SkipLayerNormalization': (context) => {
      const x = context.dims(0);
      return [x, null, null, x];
    },
    'com.microsoft:SimplifiedLayerNormalization': first,
    'com.microsoft:SkipSimplifiedLayerNormalization': (context) => {
      const x = context.dims(0);
      return [x, null, null, x];
    },
    'com.microsoft:DynamicQuantizeMatMul': (context) => [matMulDims(context)],
    'com.microsoft:MatMulIntegerToFloat': (context) => [matMulDims(context)],
    'com.microsoft:MatMulNBits': (context) => {
      const x = context.dims(0);
      return [x === null ? null : [...x.slice(0, -1), intAttribute(context.node, 'N', 0)]];
    },
    'com.microsoft:EmbedLayerNormalization': (context) => {
      const ids = context.dims(0);
      const table = context.dims(2);
      if (ids === null || table === null) return null;
      const embedded = [...ids, table[1]!];
      return [embedded, [ids[0]!], embedded];
    },
    'com.microsoft:Attention': (context) => {
      const x = context.dims(0);
      const w = context.dims(1);
      if (x === null || w === null) return null;
      const sizes = intsAttribute(context.node, 'qkv_hidden_sizes');
      const past = context.node.inputs[4] ? context.dims(4) : null;
      const heads = intAttribute(context.node, 'num_heads', 1);
      agreeOnLength(context, 3, x[1]! + (past?.[3] ?? 0), 2);
      const present = [2, x[0]!, heads, x[1]! + (past?.[3] ?? 0), past?.[4] ?? w[1]! / 3 / heads];
      return [[x[0]!, x[1]!, sizes?.[2] ?? w[1]! / 3], present];
    },
    'com.microsoft:MultiHeadAttention': (context) => {
      const q = context.dims(0);
      const v = context.node.inputs[2] ? context.dims(2) : null;
      if (q === null) return null;
      if (q.length === 5) return [[q[0]!, q[1]!, q[2]! * q[4]!]];
      const k = context.node.inputs[1] ? context.dims(1) : null;
      const past = context.node.inputs[6] ? context.dims(6) : null;
      if (k !== null) {
        const length = (k.length === 4 ? k[2]! : k[1]!) + (past?.[2] ?? 0);
        agreeOnLength(context, 4, length, 2);
        agreeOnLength(context, 5, length, 2);
      }
      return [[q[0]!, q[1]!, v === null ? q[2]! : v.length === 4 ? v[1]! * v[3]! : v[2]!]];
    },
    'com.microsoft:GroupQueryAttention': (context) => {
      const q = context.dims(0);
      if (q === null) return null;
      const packed = context.node.inputs[1] === undefined || context.node.inputs[1] === '';
      const heads = intAttribute(context.node, 'num_heads', 1);
      const kvHeads = intAttribute(context.node, 'kv_num_heads', 1);
      const past = context.dims(3);
      const out = packed ? (q[2]! / (heads + 2 * kvHeads)) * heads : q[2]!;
      const present = past === null ? null : [past[0]!, past[1]!, context.fresh(), past[3]!];
      return [[q[0]!, q[1]!, out], present, present];
    },
  };
}
