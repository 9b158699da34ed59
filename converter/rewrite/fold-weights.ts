/** Stored tensors whose elements a conversion multiplies by constants, and how they are written. */
import { bfloat16ToNumber, float16ToNumber, numberToBfloat16, numberToFloat16 } from '../../op/half.js';
import proto from 'onnx-proto';
import type { Graph } from '../graph/graph.js';
import { attribute, isOp, type GraphNode } from '../graph/node.js';
import type { Model } from '../onnx/model.js';
import { DataType, elementCount, tensorNumbers, type StoredTensor } from '../onnx/tensor.js';
import type { GraphEdit } from '../onnx/write.js';
import { Blocked } from './fold-cone.js';

/** External data of at most so many bytes a model is copied into the new file for the sake of a factor. */
const MOST_EXTERNAL_BYTES = 64 * 2 ** 20;

interface Scaled {
  readonly stored: StoredTensor;
  readonly bytes: Uint8Array;
  /** The Constant node that holds the tensor; `null` where it is an initializer. */
  readonly node: GraphNode | null;
  readonly factors: Float32Array;
}

export class FoldedWeights {
  private readonly scaled = new Map<string, Scaled>();
  private externalBytes = 0;

  constructor(
    private readonly model: Model,
    private readonly graph: Graph,
  ) {}

  /** Throws {@link Blocked} where the tensor is external data too large to be copied besides what is copied already. */
  allow(name: string): void {
    const stored = this.graph.initializers.get(name);
    if (stored === undefined || stored.external === null || this.scaled.has(name)) return;
    this.refuseBeyond(4 * elementCount(stored.dims));
  }

  /** Takes all of the factors, or throws {@link Blocked} and takes none. */
  add(factors: ReadonlyMap<string, Float32Array>): void {
    const fresh = [...factors].map(([name, own]): [string, Scaled] => [name, this.multiplied(name, own)]);
    const copied = fresh.reduce(
      (sum, [name, { stored }]) =>
        sum + (stored.external === null || this.scaled.has(name) ? 0 : 4 * elementCount(stored.dims)),
      0,
    );
    this.refuseBeyond(copied);
    this.externalBytes += copied;
    for (const [name, scaled] of fresh) this.scaled.set(name, scaled);
  }

  get isEmpty(): boolean {
    return this.scaled.size === 0;
  }

  /** The edit of the main graph with the tensors exchanged under their names. */
  applied(edit: GraphEdit): GraphEdit {
    const entries = [...this.scaled];
    return {
      ...edit,
      removed: new Set([...edit.removed, ...entries.flatMap(([, { node }]) => node ?? [])]),
      removedInitializers: new Set([
        ...edit.removedInitializers,
        ...entries.flatMap(([name, { node }]) => (node === null ? name : [])),
      ]),
      addedInitializers: [
        ...edit.addedInitializers,
        ...entries.map(([name, { stored, bytes }]) =>
          proto.onnx.TensorProto.encode({
            name,
            dims: [...stored.dims],
            dataType: stored.dataType,
            rawData: bytes,
          }).finish(),
        ),
      ],
    };
  }

  private refuseBeyond(bytes: number): void {
    if (this.externalBytes + bytes > MOST_EXTERNAL_BYTES)
      throw new Blocked('the weights are external data, of which at most 64 MiB a model are copied');
  }

  private multiplied(name: string, factors: Float32Array): Scaled {
    const producer = this.graph.producer(name);
    const node = producer && isOp(producer, 'Constant') ? producer : null;
    const stored =
      node === null ? this.graph.initializers.get(name) : (attribute(node, 'value')?.tensor ?? undefined);
    const numbers = stored && tensorNumbers(stored, this.model.source, this.model.external);
    if (!stored || !numbers) throw new Blocked(`the numbers of '${name}' are not at hand`);
    const before = this.scaled.get(name)?.factors;
    const product = before ? factors.map((factor, i) => factor * before[i]!) : factors;
    return { stored, node, factors: product, bytes: encoded(name, stored.dataType, numbers, product) };
  }
}

/** The products in the tensor's type: rounded once in float32, and without rounding or not at all in half precision. */
function encoded(name: string, type: number, numbers: Float64Array, factors: Float32Array): Uint8Array {
  // A product of two float32 is exact in float64.
  const products = numbers.map((value, i) => value * factors[i]!);
  if (type === DataType.float) {
    const single = Float32Array.from(products);
    if (single.some((value, i) => !Number.isFinite(value) && Number.isFinite(numbers[i]!)))
      throw new Blocked(`'${name}' would overflow`);
    return new Uint8Array(single.buffer);
  }
  const [encode, decode] =
    type === DataType.float16
      ? [numberToFloat16, float16ToNumber]
      : type === DataType.bfloat16
        ? [numberToBfloat16, bfloat16ToNumber]
        : [null, null];
  if (encode === null) throw new Blocked(`'${name}' is of a type that takes no factor`);
  const half = Uint16Array.from(products, encode);
  if (half.some((bits, i) => decode(bits) !== products[i]))
    throw new Blocked(`'${name}' is in half precision, where the factor is not exact`);
  return new Uint8Array(half.buffer);
}
