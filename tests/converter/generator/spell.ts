/** Writes one attention layer in the spelling of a recipe, with inputs to run it on. */
import type { Feeds, Sample } from '../../../converter/data/tensor.js';
import {
  BOOL,
  FLOAT,
  FLOAT16,
  halfBits,
  INT64,
  ModelBuilder,
  type Dim,
} from '../../../proving/model-builder.js';
import type { Random } from './random.js';
import type { Recipe } from './recipe.js';

export interface Spelled {
  readonly bytes: Uint8Array;
  readonly feeds: Feeds;
}

interface Operands {
  /** [B, H, N, D], [B, Hkv, M, D] and [B, Hkv, M, Dv]; heads merged into the batch where the layout does so. */
  readonly query: string;
  readonly key: string;
  readonly value: string;
}

export function spell(recipe: Recipe, random: Random): Spelled {
  return new Speller(recipe, random).run();
}

class Speller {
  private readonly b: ModelBuilder;
  private readonly feeds: Record<string, Sample> = {};
  private readonly type: number;
  private readonly kvHeads: number;
  private readonly valueSize: number;
  private readonly past: number;
  private readonly keyLength: number;

  constructor(
    private readonly r: Recipe,
    private readonly random: Random,
  ) {
    this.b = new ModelBuilder(r.opset);
    this.type = r.isHalf ? FLOAT16 : FLOAT;
    this.kvHeads = r.heads / r.group;
    this.valueSize = r.valueHeadSize === 0 ? r.headSize : r.valueHeadSize;
    this.past = r.cache ? 4 : 0;
    this.keyLength = r.keyLength + this.past;
  }

  run(): Spelled {
    const { r, b } = this;
    const operands = this.repeatHeads(this.operands());
    const scaled = this.scaleOperands(operands);
    let scores = this.scoreProduct(scaled.query, scaled.key);
    scores = this.scaleScores(scores);
    if (r.softcap)
      scores = b.op('Mul', [b.op('Tanh', [b.op('Div', [scores, this.scalar(20)])]), this.scalar(20)]);
    scores = this.addBias(scores);
    scores = this.addMask(scores);
    let weights = this.activate(scores);
    weights = this.afterActivation(weights);
    const result = this.valueProduct(weights, operands.value);
    this.finish(result);
    return { bytes: b.toBytes(), feeds: this.feeds };
  }

  private scalar(value: number): string {
    return this.b.scalar(this.type, value);
  }

  private weights(rows: number, columns: number): string {
    return this.b.constant(
      this.type,
      [rows, columns],
      this.random.normals(rows * columns, 1 / Math.sqrt(rows)),
    );
  }

  private feed(
    name: string,
    dims: readonly number[],
    symbols: readonly Dim[],
    values: readonly number[],
    type = this.type,
  ): string {
    const declared = this.r.isDynamic ? symbols : dims;
    this.b.input(name, type, declared);
    this.feeds[name] = sample(type, dims, values);
    return name;
  }

  private operands(): Operands {
    const { r, b, kvHeads, valueSize } = this;
    const [B, N, M, H, D] = [r.batch, r.queryLength, r.keyLength, r.heads, r.headSize];
    const width = 16;
    const random = (count: number): number[] => this.random.normals(count);
    switch (r.layout) {
      case 'direct': {
        const query = this.feed('q', [B, H, N, D], ['batch', H, 'n', D], random(B * H * N * D));
        const key = this.feed(
          'k',
          [B, kvHeads, M, D],
          ['batch', kvHeads, this.keySymbol(), D],
          random(B * kvHeads * M * D),
        );
        const value = this.feed(
          'v',
          [B, kvHeads, M, valueSize],
          ['batch', kvHeads, this.keySymbol(), valueSize],
          random(B * kvHeads * M * valueSize),
        );
        return this.withCache({ query, key, value });
      }
      case 'direct-three': {
        const query = this.feed('q', [B, N, D], ['batch', 'n', D], random(B * N * D));
        const key = this.feed('k', [B, M, D], ['batch', this.keySymbol(), D], random(B * M * D));
        const value = this.feed(
          'v',
          [B, M, valueSize],
          ['batch', this.keySymbol(), valueSize],
          random(B * M * valueSize),
        );
        return { query, key, value };
      }
      case 'heads-inside': {
        // [B, N, H, D] as graph inputs, transposed.
        const query = this.feed('q', [B, N, H, D], ['batch', 'n', H, D], random(B * N * H * D));
        const key = this.feed(
          'k',
          [B, M, kvHeads, D],
          ['batch', this.keySymbol(), kvHeads, D],
          random(B * M * kvHeads * D),
        );
        const value = this.feed(
          'v',
          [B, M, kvHeads, valueSize],
          ['batch', this.keySymbol(), kvHeads, valueSize],
          random(B * M * kvHeads * valueSize),
        );
        const swap = (name: string): string => b.op('Transpose', [name], { perm: [0, 2, 1, 3] });
        return this.withCache({ query: swap(query), key: swap(key), value: swap(value) });
      }
      case 'fused-split':
      case 'fused-five': {
        const x = this.feed('x', [B, N, width], ['batch', 'n', width], random(B * N * width));
        const all = b.op('MatMul', [x, this.weights(width, 3 * H * D)]);
        if (r.layout === 'fused-split') {
          const parts = b.split(all, 2, [H * D, H * D, H * D]);
          const [query, key, value] = parts.map((part) => this.splitHeads(part, H, D, x)) as [
            string,
            string,
            string,
          ];
          return { query, key, value };
        }
        const five = b.op('Reshape', [all, this.shape([this.batchOf(x), this.rowsOf(x), 3, H, D])]);
        const moved = b.op('Transpose', [five], { perm: [2, 0, 3, 1, 4] });
        const pick = (index: number): string =>
          this.random.chance(0.5)
            ? b.op('Gather', [moved, b.scalar(INT64, index)], { axis: 0 })
            : b.squeeze(b.op('Slice', [moved, b.ints([index]), b.ints([index + 1]), b.ints([0])]), [0]);
        return { query: pick(0), key: pick(1), value: pick(2) };
      }
      case 'sequence-first': {
        const x = this.feed('x', [N, B, width], ['n', 'batch', width], random(N * B * width));
        const y =
          M === N
            ? x
            : this.feed('y', [M, B, width], [this.keySymbol(), 'batch', width], random(M * B * width));
        const heads = (source: string, count: number, size: number): string => {
          const projected = b.op('MatMul', [source, this.weights(width, count * size)]);
          const four = b.op('Reshape', [
            projected,
            this.shape([
              this.sizeOf(source, 0, this.lengthOf(source)),
              this.sizeOf(source, 1, B),
              count,
              size,
            ]),
          ]);
          return b.op('Transpose', [four], { perm: [1, 2, 0, 3] });
        };
        return this.withCache({
          query: heads(x, H, D),
          key: heads(y, kvHeads, D),
          value: heads(y, kvHeads, valueSize),
        });
      }
      case 'split-heads':
      case 'merged': {
        const x = this.feed('x', [B, N, width], ['batch', 'n', width], random(B * N * width));
        const y =
          M === N
            ? x
            : this.feed('y', [B, M, width], ['batch', this.keySymbol(), width], random(B * M * width));
        const project = (source: string, count: number, size: number): string => {
          const product = b.op('MatMul', [source, this.weights(width, count * size)]);
          return this.splitHeads(
            b.op('Add', [product, b.constant(this.type, [count * size], random(count * size))]),
            count,
            size,
            source,
          );
        };
        const query = project(x, H, D);
        const key = project(y, kvHeads, D);
        const value = project(y, kvHeads, valueSize);
        if (r.layout === 'split-heads') return this.withCache({ query, key, value });
        const merge = (name: string, length: number, size: number): string =>
          b.op('Reshape', [name, r.isDynamic ? b.ints([-1, length, size]) : b.ints([B * H, length, size])]);
        return r.isDynamic
          ? {
              query: this.merge(query, x, D),
              key: this.merge(key, y, D),
              value: this.merge(value, y, valueSize),
            }
          : { query: merge(query, N, D), key: merge(key, M, D), value: merge(value, M, valueSize) };
      }
    }
  }

  private merge(name: string, source: string, size: number): string {
    const { b } = this;
    const total = b.op('Mul', [b.size(source, 0), b.ints([this.r.heads])]);
    return b.op('Reshape', [name, b.op('Concat', [total, b.size(source, 1), b.ints([size])], { axis: 0 })]);
  }

  private lengthOf(source: string): number {
    return source === 'x' ? this.r.queryLength : this.r.keyLength;
  }

  private keySymbol(): Dim {
    return this.r.keyLength === this.r.queryLength ? 'n' : 'm';
  }

  /** A size as a number, or read off a tensor in models with open dimensions. */
  private sizeOf(source: string, axis: number, value: number): number | string {
    return this.r.isDynamic ? this.b.size(source, axis) : value;
  }

  private batchOf(source: string): number | string {
    return this.random.chance(0.5) ? 0 : this.sizeOf(source, 0, this.r.batch);
  }

  private rowsOf(source: string): number | string {
    return this.random.chance(0.5) ? -1 : this.sizeOf(source, 1, this.lengthOf(source));
  }

  private shape(entries: readonly (number | string)[]): string {
    const { b } = this;
    if (entries.every((entry): entry is number => typeof entry === 'number')) return b.ints(entries);
    return b.op(
      'Concat',
      entries.map((entry) => (typeof entry === 'number' ? b.ints([entry]) : entry)),
      { axis: 0 },
    );
  }

  private splitHeads(name: string, count: number, size: number, source: string): string {
    const { b } = this;
    const four = b.op('Reshape', [
      name,
      this.shape([this.batchOf(source), this.rowsOf(source), count, size]),
    ]);
    return b.op('Transpose', [four], { perm: [0, 2, 1, 3] });
  }

  private withCache(operands: Operands): Operands {
    const { r, b, kvHeads, valueSize, past } = this;
    if (!r.cache) return operands;
    const join = (name: string, fresh: string, size: number): string => {
      const shape = [r.batch, kvHeads, past, size];
      const old = this.feed(
        `past_${name}`,
        shape,
        ['batch', kvHeads, 'past', size],
        this.random.normals(r.batch * kvHeads * past * size),
      );
      b.output(`present_${name}`, this.type);
      return b.op('Concat', [old, fresh], { axis: 2 }, `present_${name}`);
    };
    return {
      query: operands.query,
      key: join('key', operands.key, r.headSize),
      value: join('value', operands.value, valueSize),
    };
  }

  private repeatHeads(operands: Operands): Operands {
    const { r, b, kvHeads } = this;
    if (r.group === 1) return operands;
    const repeat = (name: string, size: number): string => {
      switch (r.repeat) {
        case 'broadcast':
          return name;
        case 'gather':
          return b.op(
            'Gather',
            [name, b.ints(Array.from({ length: r.heads }, (_, i) => Math.floor(i / r.group)))],
            { axis: 1 },
          );
        case 'expand':
        case 'tile': {
          const five = b.unsqueeze(name, [2]);
          const batch = this.sizeOf(name, 0, r.batch);
          const length = this.sizeOf(name, 2, this.keyLength);
          const wide =
            r.repeat === 'tile'
              ? b.op('Tile', [five, b.ints([1, 1, r.group, 1, 1])])
              : b.op('Expand', [five, this.shape([batch, kvHeads, r.group, length, size])]);
          return b.op('Reshape', [wide, this.shape([batch, r.heads, length, size])]);
        }
      }
    };
    return {
      query: operands.query,
      key: repeat(operands.key, r.headSize),
      value: repeat(operands.value, this.valueSize),
    };
  }

  private scaleOperands(operands: Operands): Operands {
    const { r, b } = this;
    const scale = 1 / Math.sqrt(r.headSize);
    const times = (name: string, factor: number): string => b.op('Mul', [name, this.scalar(factor)]);
    switch (r.scale) {
      case 'query':
        return { ...operands, query: times(operands.query, scale) };
      case 'key':
        return { ...operands, key: b.op('Div', [operands.key, this.scalar(1 / scale)]) };
      case 'both': {
        const root = Math.sqrt(scale);
        return { ...operands, query: times(operands.query, root), key: times(operands.key, root) };
      }
      default:
        return operands;
    }
  }

  private get isMerged(): boolean {
    return this.r.layout === 'merged' || this.r.layout === 'direct-three';
  }

  /** Swaps the last two axes of the keys. */
  private transposed(key: string): string {
    const { r, b } = this;
    if (this.isMerged) return b.op('Transpose', [key], { perm: [0, 2, 1] });
    if (r.keyTranspose === 'sandwich') {
      const flat = b.op('Reshape', [key, this.shape([-1, this.sizeOf(key, 2, this.keyLength), r.headSize])]);
      const swapped = b.op('Transpose', [flat], { perm: [0, 2, 1] });
      const batch = this.sizeOf(key, 0, r.batch);
      const heads = r.repeat === 'broadcast' && r.group > 1 ? this.kvHeads : r.heads;
      return b.op('Reshape', [
        swapped,
        this.shape([batch, heads, r.headSize, this.sizeOf(key, 2, this.keyLength)]),
      ]);
    }
    if (r.keyTranspose === 'perm') {
      const inner = b.op('Transpose', [key], { perm: [0, 2, 1, 3] });
      return b.op('Transpose', [inner], { perm: [0, 2, 3, 1] });
    }
    return b.op('Transpose', [key], { perm: [0, 1, 3, 2] });
  }

  private scoreProduct(query: string, key: string): string {
    const { r, b } = this;
    switch (r.product) {
      case 'einsum':
        return b.op('Einsum', [query, key], {
          equation: r.repeat === 'broadcast' && r.group > 1 ? 'bhid,bgjd->bhij' : 'bhid,bhjd->bhij',
        });
      case 'fused-matmul':
        return b.op(
          'FusedMatMul',
          [query, key],
          { transB: 1, alpha: { float: 1 } },
          undefined,
          'com.microsoft',
        );
      case 'swapped': {
        // (K Q^T)^T
        const product = b.op('MatMul', [key, b.op('Transpose', [query], { perm: [0, 1, 3, 2] })]);
        return b.op('Transpose', [product], { perm: [0, 1, 3, 2] });
      }
      case 'matmul':
        return b.op('MatMul', [query, this.transposed(key)]);
    }
  }

  private scaleScores(scores: string): string {
    const { r, b } = this;
    const scale = 1 / Math.sqrt(r.headSize);
    switch (r.scale) {
      case 'mul':
        return b.op('Mul', [scores, this.scalar(scale)]);
      case 'mul-first':
        return b.op('Mul', [this.scalar(scale), scores]);
      case 'div':
        return b.op('Div', [scores, this.scalar(1 / scale)]);
      case 'runtime': {
        const size = b.op('Cast', [b.ints([r.headSize])], { to: this.type });
        return b.op('Div', [scores, b.op('Sqrt', [size])]);
      }
      case 'per-head': {
        const factors = Array.from({ length: r.heads }, (_, i) => scale * (1 + 0.3 * i));
        return b.op('Mul', [scores, b.constant(this.type, [r.heads, 1, 1], factors)]);
      }
      default:
        return scores;
    }
  }

  private addBias(scores: string): string {
    const { r, b } = this;
    switch (r.bias) {
      case 'constant':
        return b.op('Add', [scores, this.scalar(-1.5)]);
      case 'first':
        return b.op('Add', [this.scalar(-1.5), scores]);
      case 'sub':
        return b.op('Sub', [scores, this.scalar(1.5)]);
      case 'per-head':
        return b.op('Add', [scores, b.constant(this.type, [1, r.heads, 1, 1], this.random.normals(r.heads))]);
      case 'log-n': {
        const count = b.op('Cast', [b.size(scores, this.isMerged ? 2 : 3)], { to: this.type });
        return b.op('Sub', [scores, b.op('Log', [count])]);
      }
      case 'none':
        return scores;
    }
  }

  private addMask(scores: string): string {
    const { r, b } = this;
    const [N, M] = [r.queryLength, this.keyLength];
    const full = (data: string): string => b.op('Add', [scores, data]);
    const lead = this.isMerged ? [1] : [1, 1];
    const square = (value: (i: number, j: number) => number): number[] =>
      Array.from({ length: N * M }, (_, at) => value(Math.floor(at / M), at % M));
    const lowest = r.isHalf ? -65504 : -3.4028234663852886e38;
    switch (r.mask) {
      case 'none':
        return scores;
      case 'zero':
        return full(b.constant(this.type, [...lead, 1, M], new Array<number>(M).fill(0)));
      case 'additive-keys': {
        const keep = square((i, j) => (j === 0 || (i + j) % 3 > 0 ? 0 : -10000)).slice(0, M);
        return full(this.maskInput('mask', [...lead, 1, M], keep));
      }
      case 'additive-full':
        return full(
          this.maskInput(
            'mask',
            [...lead, N, M],
            square((i, j) => (j === 0 || this.random.chance(0.7) ? 0.5 * (i % 2) : lowest)),
          ),
        );
      case 'integer': {
        const flags = Array.from({ length: M }, (_, j) => (j < M - 1 ? 1 : 0));
        const mask = this.feed('attention_mask', [1, M], [1, M], flags, INT64);
        const wide = b.op('Cast', [b.unsqueeze(mask, this.isMerged ? [1] : [1, 2])], { to: this.type });
        return full(b.op('Mul', [b.op('Sub', [this.scalar(1), wide]), this.scalar(-10000)]));
      }
      case 'where-inf':
      case 'where-large':
      case 'where-flipped': {
        const hides = r.mask === 'where-flipped';
        const flags = square((_i, j) => (j === 0 || this.random.chance(0.7) ? 1 : 0)).map((flag) =>
          hides ? 1 - flag : flag,
        );
        const mask = this.feed('mask', [...lead, N, M], [...lead, N, M], flags, BOOL);
        const fill = this.scalar(r.mask === 'where-large' ? (r.isHalf ? -60000 : -1e9) : -Infinity);
        return b.op('Where', hides ? [mask, fill, scores] : [mask, scores, fill]);
      }
      case 'causal-constant':
        return b.op('Where', [
          b.constant(
            BOOL,
            [...lead, N, M],
            square((i, j) => (j <= i ? 1 : 0)),
          ),
          scores,
          this.scalar(-Infinity),
        ]);
      case 'causal-range':
      case 'window': {
        const length = (axis: number): string =>
          b.op('Gather', [b.op('Shape', [scores]), b.scalar(INT64, axis)]);
        const range = (axis: number): string =>
          b.op('Range', [b.scalar(INT64, 0), length(axis), b.scalar(INT64, 1)]);
        const [rows, keys] = this.isMerged ? [1, 2] : [2, 3];
        const distance = b.op('Sub', [b.unsqueeze(range(rows), [1]), b.unsqueeze(range(keys), [0])]);
        const isLater = b.op('Less', [distance, b.scalar(INT64, 0)]);
        if (r.mask === 'causal-range') return b.op('Where', [isLater, this.scalar(lowest), scores]);
        const isFar = b.op('Greater', [distance, b.scalar(INT64, 2)]);
        return b.op('Where', [b.op('Or', [isLater, isFar]), this.scalar(lowest), scores]);
      }
      case 'causal-trilu': {
        const shape = b.op(
          'Concat',
          [b.size(scores, this.isMerged ? 1 : 2), b.size(scores, this.isMerged ? 2 : 3)],
          { axis: 0 },
        );
        const filled = b.op('Expand', [b.scalar(FLOAT, lowest), shape]);
        const upper = b.op('Trilu', [filled, b.scalar(INT64, 1)], { upper: 1 });
        return full(this.type === FLOAT ? upper : b.op('Cast', [upper], { to: this.type }));
      }
      case 'bias-constant': {
        const lead2 = this.isMerged ? [1] : [r.heads];
        const count = lead2[0]! * N * M;
        return full(b.constant(this.type, [...lead2, N, M], this.random.normals(count)));
      }
      case 'alibi': {
        const heads = this.isMerged ? 1 : r.heads;
        const slopes = Array.from({ length: heads }, (_, h) => 2 ** -(h + 1));
        return full(
          b.constant(
            this.type,
            [heads, N, M],
            slopes.flatMap((slope) => square((i, j) => -slope * Math.abs(i - j))),
          ),
        );
      }
      case 'two-masks': {
        const causal = b.constant(
          this.type,
          [...lead, N, M],
          square((i, j) => (j <= i ? 0 : -10000)),
        );
        const keys = this.maskInput(
          'mask',
          [...lead, 1, M],
          Array.from({ length: M }, (_, j) => (j < M - 1 ? 0 : -10000)),
        );
        return b.op('Add', [full(causal), keys]);
      }
    }
  }

  private maskInput(name: string, dims: readonly number[], values: readonly number[]): string {
    return this.feed(name, dims, dims, values);
  }

  private activate(scores: string): string {
    const { r, b } = this;
    const last = this.isMerged ? 2 : 3;
    switch (r.activation) {
      case 'softmax':
        return b.op('Softmax', [scores], { axis: r.opset >= 13 && this.random.chance(0.5) ? -1 : last });
      case 'softmax-cast': {
        const wide = b.op('Softmax', [b.op('Cast', [scores], { to: FLOAT })], { axis: last });
        return b.op('Cast', [wide], { to: this.type });
      }
      case 'softmax-moved': {
        const perm = this.isMerged ? [0, 2, 1] : [0, 1, 3, 2];
        const moved = b.op('Transpose', [scores], { perm });
        if (r.opset < 13) return b.op('Softmax', [b.op('Transpose', [moved], { perm })], { axis: last });
        return b.op('Transpose', [b.op('Softmax', [moved], { axis: last - 1 })], { perm });
      }
      case 'written': {
        const shifted = b.op('Sub', [scores, b.reduce('ReduceMax', scores, last)]);
        const exponentials = b.op('Exp', [shifted]);
        return b.op('Div', [exponentials, b.reduce('ReduceSum', exponentials, last)]);
      }
      case 'written-reciprocal': {
        const exponentials = b.op('Exp', [b.op('Sub', [scores, b.reduce('ReduceMax', scores, last)])]);
        return b.op('Mul', [exponentials, b.op('Reciprocal', [b.reduce('ReduceSum', exponentials, last)])]);
      }
      case 'log-softmax':
        return b.op('Exp', [b.op('LogSoftmax', [scores], { axis: last })]);
      case 'sigmoid':
        return b.op('Sigmoid', [scores]);
      case 'sigmoid-exp':
        return b.op('Div', [
          this.scalar(1),
          b.op('Add', [this.scalar(1), b.op('Exp', [b.op('Neg', [scores])])]),
        ]);
      case 'sigmoid-tanh': {
        const half = b.op('Mul', [scores, this.scalar(0.5)]);
        return b.op('Mul', [b.op('Add', [b.op('Tanh', [half]), this.scalar(1)]), this.scalar(0.5)]);
      }
    }
  }

  private afterActivation(weights: string): string {
    const { r, b } = this;
    const guarded =
      r.guard && r.opset >= 13 ? b.op('Where', [b.op('IsNaN', [weights]), this.scalar(0), weights]) : weights;
    switch (r.noise) {
      case 'dropout':
        return b.op('Dropout', [guarded]);
      case 'identity':
        return b.op('Identity', [guarded]);
      case 'cast':
        return b.op('Cast', [guarded], { to: this.type });
      case 'scale-weights':
        return b.op('Mul', [guarded, this.scalar(0.5)]);
      case 'none':
        return guarded;
    }
  }

  private valueProduct(weights: string, value: string): string {
    const { r, b } = this;
    const swap = this.isMerged ? [0, 2, 1] : [0, 1, 3, 2];
    const isShared = r.repeat === 'broadcast' && r.group > 1;
    if (r.values === 'einsum')
      return b.op('Einsum', [weights, value], { equation: isShared ? 'bhij,bgjd->bhid' : 'bhij,bhjd->bhid' });
    if (r.values === 'left') {
      // (V^T P^T)^T
      const product = b.op('MatMul', [
        b.op('Transpose', [value], { perm: swap }),
        b.op('Transpose', [weights], { perm: swap }),
      ]);
      return b.op('Transpose', [product], { perm: swap });
    }
    return b.op('MatMul', [weights, value]);
  }

  private finish(result: string): void {
    const { r, b, valueSize } = this;
    let output = result;
    if (!this.isMerged && r.output !== 'heads') {
      const moved = b.op('Transpose', [result], { perm: [0, 2, 1, 3] });
      output = b.op('Reshape', [moved, b.ints([0, 0, r.heads * valueSize])]);
      if (r.output === 'projected') output = b.op('MatMul', [output, this.weights(r.heads * valueSize, 8)]);
    }
    b.op('Identity', [output], {}, 'result');
    b.output('result', this.type);
  }
}

function sample(type: number, dims: readonly number[], values: readonly number[]): Sample {
  if (type === INT64) return { type: 'int64', dims, data: BigInt64Array.from(values, BigInt) };
  if (type === BOOL) return { type: 'bool', dims, data: Uint8Array.from(values) };
  if (type === FLOAT16) return { type: 'float16', dims, data: Uint16Array.from(values, halfBits) };
  return { type: 'float32', dims, data: Float32Array.from(values) };
}
