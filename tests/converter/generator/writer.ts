/** What all parts of a spelling write with: the model builder, the recipe, sizes, inputs and shapes. */
import type { Sample } from '../../../converter/data/tensor.js';
import { numberToFloat16 } from '../../../op/half.js';
import {
  BFLOAT16,
  BOOL,
  FLOAT,
  FLOAT16,
  INT64,
  ModelBuilder,
  type Dim,
} from '../../../proving/model-builder.js';
import { BrainFloatBuilder, floatName } from './brain-float-builder.js';
import type { Random } from './random.js';
import type { Recipe } from './recipe.js';

export interface Operands {
  /** [B, H, N, D], [B, Hkv, M, D] and [B, Hkv, M, Dv]; heads merged into the batch where the layout does so. */
  readonly query: string;
  readonly key: string;
  readonly value: string;
}

export class Writer {
  readonly b: ModelBuilder;
  readonly feeds: Record<string, Sample> = {};
  readonly type: number;
  readonly kvHeads: number;
  readonly valueSize: number;
  readonly past: number;
  readonly keyLength: number;

  constructor(
    readonly r: Recipe,
    readonly random: Random,
  ) {
    this.b = r.isBrain ? new BrainFloatBuilder(r.opset) : new ModelBuilder(r.opset);
    this.type = r.isHalf ? FLOAT16 : r.isBrain ? BFLOAT16 : FLOAT;
    this.kvHeads = r.heads / r.group;
    this.valueSize = r.valueHeadSize === 0 ? r.headSize : r.valueHeadSize;
    this.past = r.cache ? 4 : 0;
    this.keyLength = r.keyLength + this.past;
  }

  scalar(value: number): string {
    return this.b.scalar(this.type, value);
  }

  weights(rows: number, columns: number): string {
    return this.b.constant(
      this.type,
      [rows, columns],
      this.random.normals(rows * columns, 1 / Math.sqrt(rows)),
    );
  }

  feed(
    name: string,
    dims: readonly number[],
    symbols: readonly Dim[],
    values: readonly number[],
    type = this.type,
  ): string {
    const declared = this.r.isDynamic ? symbols : dims;
    this.b.input(name, type, declared);
    if (type === BFLOAT16) this.feeds[floatName(name)] = sample(FLOAT, dims, values);
    else this.feeds[name] = sample(type, dims, values);
    return name;
  }

  shape(entries: readonly (number | string)[]): string {
    const { b } = this;
    if (entries.every((entry): entry is number => typeof entry === 'number')) return b.ints(entries);
    return b.op(
      'Concat',
      entries.map((entry) => (typeof entry === 'number' ? b.ints([entry]) : entry)),
      { axis: 0 },
    );
  }

  /** A size as a number, or read off a tensor in models with open dimensions. */
  sizeOf(source: string, axis: number, value: number): number | string {
    return this.r.isDynamic ? this.b.size(source, axis) : value;
  }

  batchOf(source: string): number | string {
    return this.random.chance(0.5) ? 0 : this.sizeOf(source, 0, this.r.batch);
  }

  rowsOf(source: string): number | string {
    return this.random.chance(0.5) ? -1 : this.sizeOf(source, 1, this.lengthOf(source));
  }

  lengthOf(source: string): number {
    return source === 'x' ? this.r.queryLength : this.r.keyLength;
  }

  keySymbol(): Dim {
    return this.r.keyLength === this.r.queryLength ? 'n' : 'm';
  }

  get isMerged(): boolean {
    return this.r.layout === 'merged' || this.r.layout === 'direct-three';
  }

  splitHeads(name: string, count: number, size: number, source: string): string {
    const { b } = this;
    const four = b.op('Reshape', [
      name,
      this.shape([this.batchOf(source), this.rowsOf(source), count, size]),
    ]);
    return b.op('Transpose', [four], { perm: [0, 2, 1, 3] });
  }

  merge(name: string, source: string, size: number): string {
    const { b } = this;
    const total = b.op('Mul', [b.size(source, 0), b.ints([this.r.heads])]);
    return b.op('Reshape', [name, b.op('Concat', [total, b.size(source, 1), b.ints([size])], { axis: 0 })]);
  }
}

function sample(type: number, dims: readonly number[], values: readonly number[]): Sample {
  if (type === INT64) return { type: 'int64', dims, data: BigInt64Array.from(values, BigInt) };
  if (type === BOOL) return { type: 'bool', dims, data: Uint8Array.from(values) };
  if (type === FLOAT16) return { type: 'float16', dims, data: Uint16Array.from(values, numberToFloat16) };
  return { type: 'float32', dims, data: Float32Array.from(values) };
}
