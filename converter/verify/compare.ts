/** Distance of one tensor from another, accumulated over many runs. */
import { bfloat16ToNumber, float16ToNumber } from '../../op/half.js';

/** What comparison reads of a tensor (an ort.Tensor is one). */
export interface Compared {
  readonly type: string;
  readonly dims: readonly number[];
  readonly data: ArrayLike<unknown>;
}

export interface Distance {
  readonly name: string;
  readonly type: string;
  /** Largest |difference|; infinite where one side is not finite and the other is. */
  readonly maxAbs: number;
  /** `maxAbs` over the largest |reference|; for integers and booleans the share of elements that differ. */
  readonly maxRelative: number;
  /** |difference| over |reference|, Euclidean. */
  readonly relative: number;
  readonly cosine: number;
  readonly elements: number;
  /** Elements where the reference is NaN: nothing can be said about them. */
  readonly undefinedInReference: number;
}

/** Elements of any numeric tensor as doubles. */
export function numbersOf({ type, data }: Compared): ArrayLike<number> {
  if (type === 'float16' && data instanceof Uint16Array) return Float64Array.from(data, float16ToNumber);
  if (type === 'bfloat16' && data instanceof Uint16Array) return Float64Array.from(data, bfloat16ToNumber);
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) {
    return Float64Array.from(data as unknown as ArrayLike<bigint>, Number);
  }
  return data as ArrayLike<number>;
}

export class DistanceMeter {
  #type = '';
  #maxAbs = 0;
  #maxReference = 0;
  #difference = 0;
  #reference = 0;
  #other = 0;
  #product = 0;
  #elements = 0;
  #differing = 0;
  #undefined = 0;

  constructor(readonly name: string) {}

  /** Throws where types or shapes differ. */
  add(reference: Compared, other: Compared): void {
    if (reference.type !== other.type || reference.dims.join() !== other.dims.join()) {
      const text = ({ type, dims }: Compared): string => `${type} [${dims.join(', ')}]`;
      throw new Error(
        `output "${this.name}" is ${text(reference)} in one model and ${text(other)} in the other`,
      );
    }
    this.#type = reference.type;
    if (reference.type === 'string') {
      this.#addTexts(reference.data, other.data);
      return;
    }
    const a = numbersOf(reference);
    const b = numbersOf(other);
    this.#elements += a.length;
    for (let i = 0; i < a.length; i++) {
      const x = a[i]!;
      const y = b[i]!;
      if (Number.isNaN(x)) {
        this.#undefined++;
        continue;
      }
      if (x === y) {
        if (!Number.isFinite(x)) continue;
      } else {
        this.#differing++;
        const difference = Math.abs(x - y);
        if (!Number.isFinite(difference)) {
          this.#maxAbs = Infinity;
          this.#difference = Infinity;
          continue;
        }
        this.#maxAbs = Math.max(this.#maxAbs, difference);
        this.#difference += difference * difference;
      }
      this.#maxReference = Math.max(this.#maxReference, Math.abs(x));
      this.#reference += x * x;
      this.#other += y * y;
      this.#product += x * y;
    }
  }

  #addTexts(a: ArrayLike<unknown>, b: ArrayLike<unknown>): void {
    this.#elements += a.length;
    for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) this.#differing++;
  }

  result(): Distance {
    const discrete = !/float/.test(this.#type);
    const ratio = (value: number, reference: number): number =>
      value === 0 ? 0 : value / Math.max(reference, 1e-30);
    const norms = Math.sqrt(this.#reference * this.#other);
    return {
      name: this.name,
      type: this.#type,
      maxAbs: this.#maxAbs,
      maxRelative: discrete
        ? ratio(this.#differing, this.#elements)
        : ratio(this.#maxAbs, this.#maxReference),
      relative: ratio(Math.sqrt(this.#difference), Math.sqrt(this.#reference)),
      cosine: norms > 0 ? this.#product / norms : this.#differing === 0 ? 1 : 0,
      elements: this.#elements,
      undefinedInReference: this.#undefined,
    };
  }
}
