/** What a generated model is made of: one choice per dimension of spelling. */
import type { Random } from './random.js';

export interface Recipe {
  readonly seed: number;
  readonly opset: number;
  readonly batch: number;
  readonly heads: number;
  readonly group: number;
  readonly queryLength: number;
  readonly keyLength: number;
  readonly headSize: number;
  readonly valueHeadSize: number;
  readonly isDynamic: boolean;
  readonly isHalf: boolean;
  /** In bfloat16. */
  readonly isBrain: boolean;
  readonly layout:
    | 'split-heads'
    | 'fused-split'
    | 'fused-five'
    | 'merged'
    | 'direct'
    | 'direct-three'
    | 'sequence-first'
    | 'heads-inside';
  readonly keyTranspose: 'last' | 'perm' | 'sandwich' | 'early';
  readonly product: 'matmul' | 'einsum' | 'fused-matmul' | 'swapped';
  readonly scale: 'none' | 'mul' | 'div' | 'query' | 'key' | 'both' | 'runtime' | 'per-head' | 'mul-first';
  readonly softcap: boolean;
  readonly mask:
    | 'none'
    | 'zero'
    | 'additive-keys'
    | 'additive-full'
    | 'integer'
    | 'where-inf'
    | 'where-large'
    | 'where-flipped'
    | 'causal-constant'
    | 'causal-range'
    | 'causal-trilu'
    | 'window'
    | 'bias-constant'
    | 'alibi'
    | 'two-masks';
  readonly activation:
    | 'softmax'
    | 'softmax-cast'
    | 'softmax-moved'
    | 'written'
    | 'written-reciprocal'
    | 'log-softmax'
    | 'sigmoid'
    | 'sigmoid-exp'
    | 'sigmoid-tanh';
  readonly bias: 'none' | 'constant' | 'sub' | 'first' | 'per-head' | 'log-n';
  readonly guard: boolean;
  readonly noise: 'none' | 'dropout' | 'identity' | 'cast' | 'scale-weights';
  readonly repeat: 'expand' | 'tile' | 'gather' | 'broadcast';
  readonly cache: boolean;
  readonly values: 'right' | 'left' | 'einsum';
  readonly output: 'flat' | 'heads' | 'projected';
}

export function randomRecipe(seed: number, random: Random): Recipe {
  const opset = random.pick([11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21]);
  const layout = random.pick([
    'split-heads',
    'split-heads',
    'fused-split',
    'fused-five',
    'merged',
    'direct',
    'direct-three',
    'sequence-first',
    'heads-inside',
  ] as const);
  const isFused = layout === 'fused-split' || layout === 'fused-five';
  const cache = !isFused && layout !== 'merged' && layout !== 'direct-three' && random.chance(0.15);
  const group =
    !isFused &&
    layout !== 'merged' &&
    layout !== 'direct-three' &&
    layout !== 'heads-inside' &&
    random.chance(0.3)
      ? random.pick([2, 3])
      : 1;
  const kvHeads = random.pick([1, 2, 2, 3, 4]);
  const queryLength = random.integer(3, 9);
  const isSelf = isFused || cache || random.chance(0.7);
  const isRankFour = layout !== 'merged' && layout !== 'direct-three';
  const isHalf = random.chance(0.08) && opset >= 13;
  const activation = random.pick([
    'softmax',
    'softmax',
    'softmax',
    'softmax-cast',
    'softmax-moved',
    'written',
    'written-reciprocal',
    'log-softmax',
    'sigmoid',
    'sigmoid',
    'sigmoid-exp',
    'sigmoid-tanh',
  ] as const);
  const isSigmoid = activation.startsWith('sigmoid');
  const masks = [
    'none',
    'none',
    'zero',
    'additive-keys',
    'additive-full',
    'integer',
    'where-inf',
    'where-large',
    'where-flipped',
    'causal-constant',
    'causal-range',
    'bias-constant',
    'two-masks',
  ] as const;
  const trilu = opset >= 14 ? (['causal-trilu', 'window', 'alibi'] as const) : [];
  const mask = random.pick([...masks, ...trilu]);
  const isSquare = mask.startsWith('causal') || mask === 'window' || mask === 'alibi' || mask === 'two-masks';
  const keyLength = isSelf || isSquare ? queryLength : random.integer(3, 9);
  const product =
    isRankFour && opset >= 12
      ? random.pick(['matmul', 'matmul', 'matmul', 'einsum', 'fused-matmul', 'swapped'] as const)
      : 'matmul';
  // ONNX Runtime 1.30 crashes while loading some float16 models with two masks, before any conversion.
  const half = isHalf && mask !== 'two-masks';
  const recipe = {
    seed,
    opset,
    batch: random.pick([1, 2, 3]),
    heads: kvHeads * group,
    group,
    queryLength,
    keyLength,
    headSize: random.pick([4, 5, 8]),
    valueHeadSize: isFused || random.chance(0.7) ? 0 : random.pick([3, 6]),
    isDynamic: random.chance(0.5),
    isHalf: half,
    layout,
    keyTranspose: random.pick(['last', 'last', 'perm', 'sandwich', 'early'] as const),
    product,
    scale: random.pick([
      'none',
      'mul',
      'div',
      'query',
      'key',
      'both',
      'runtime',
      'mul-first',
      ...(isRankFour ? (['per-head'] as const) : []),
    ] as const),
    softcap: random.chance(0.1),
    mask,
    activation,
    bias: isSigmoid
      ? random.pick([
          'none',
          'constant',
          'sub',
          'first',
          'log-n',
          ...(isRankFour ? (['per-head'] as const) : []),
        ] as const)
      : 'none',
    guard: random.chance(0.2),
    noise: random.pick(['none', 'none', 'dropout', 'identity', 'cast', 'scale-weights'] as const),
    repeat: random.pick([
      'expand',
      'tile',
      'gather',
      ...(kvHeads === 1 ? (['broadcast'] as const) : []),
    ] as const),
    cache,
    values:
      isRankFour && opset >= 12
        ? random.pick(['right', 'right', 'left', 'einsum'] as const)
        : random.pick(['right', 'left'] as const),
    output: random.pick(['flat', 'flat', 'heads', 'projected'] as const),
  };
  return { ...recipe, isBrain: opset >= 13 && !half && random.chance(0.1) };
}
