/**
 * Follows a factor from an operand of attention upstream to the stored tensors that can carry it. Every value on the way has
 * one number per element: what it has to be multiplied by, or NaN where nobody cares. A value that somebody else reads
 * has to stay as it is there, so what is shared meets two numbers for one element and the way is blocked.
 */
import type { Environment } from '../graph/environment.js';
import type { Graph } from '../graph/graph.js';
import type { Knowledge } from '../graph/knowledge.js';
import {
  axisAttribute,
  checkedAxis,
  intAttribute,
  isOp,
  nodeLabel,
  permutation,
  type GraphNode,
} from '../graph/node.js';
import { broadcastIndex, gatherView, strides } from '../graph/numeric.js';
import { sliceAxes, splitSizes } from '../graph/operator-arguments.js';
import { elementCount } from '../onnx/tensor.js';

/** Why a factor cannot move into the weights. */
export class Blocked extends Error {}

/** Values with more elements are not followed. */
export const MOST_ELEMENTS = 1 << 24;

export interface Operand {
  readonly graph: Graph;
  readonly name: string;
  /** The attention's own node, the one that may see the value change. */
  readonly reader: GraphNode;
  /** Throws {@link Blocked} where a stored tensor may not be changed, before any work is spent on it. */
  readonly allow: (stored: string) => void;
}

/**
 * Factors for the elements of stored tensors, by name, that multiply the operand by `factorsIn(environment)`: the same in every
 * environment of sizes. Throws {@link Blocked}.
 */
export function factorsUpstream(
  operand: Operand,
  knowledge: Knowledge,
  factorsIn: (environment: number) => Float32Array,
): Map<string, Float32Array> {
  const [first, ...others] = knowledge.environments.map((environment, at) =>
    new Cone(operand, knowledge, environment).run(factorsIn(at)),
  );
  for (const other of others) {
    const isSame =
      other.size === first!.size &&
      [...other].every(([name, factors]) => first!.get(name)?.every((value, i) => value === factors[i]));
    if (!isSame) throw new Blocked('the way to the weights depends on the sizes of the inputs');
  }
  return first!;
}

class Cone {
  private readonly graph: Graph;
  private readonly needs = new Map<string, Float32Array>();
  /** Values that have to stay whatever else is asked of them. */
  private readonly kept = new Set<string>();
  private readonly passed = new Set<GraphNode>();

  constructor(
    private readonly operand: Operand,
    private readonly knowledge: Knowledge,
    private readonly environment: Environment,
  ) {
    this.graph = operand.graph;
  }

  run(factors: Float32Array): Map<string, Float32Array> {
    const { name, reader } = this.operand;
    if (reader.inputs.filter((input) => input === name).length !== 1)
      throw new Blocked(`'${nodeLabel(reader)}' does not read '${name}' exactly once`);
    this.passed.add(reader);
    this.need(name, factors);
    const done = new Map<string, Float32Array>();
    for (;;) {
      const node = this.last();
      if (node === null) break;
      const outputs = node.outputs.map((output) => (output === '' ? null : this.settle(output)));
      if (isOp(node, 'Constant')) {
        if (outputs[0] && changes(outputs[0])) done.set(node.outputs[0]!, filled(outputs[0]));
      } else if (outputs.some((own) => own && changes(own))) {
        this.passed.add(node);
        this.through(node, outputs);
      }
      for (const output of node.outputs) this.needs.delete(output);
    }
    for (const stored of this.needs.keys()) {
      const own = this.settle(stored);
      if (!changes(own)) continue;
      if (!this.graph.initializers.has(stored))
        throw new Blocked(`'${stored}' is not computed from weights of its own`);
      if (this.graph.inputs.some((input) => input.name === stored))
        throw new Blocked(`'${stored}' is an input of the model`);
      done.set(stored, filled(own));
    }
    return done;
  }

  /** Of the nodes whose outputs need something, the last in order: all that read them were seen before. */
  private last(): GraphNode | null {
    let found: GraphNode | null = null;
    for (const name of this.needs.keys()) {
      const node = this.graph.producer(name);
      if (node && (found === null || this.graph.rank(node) > this.graph.rank(found))) found = node;
    }
    return found;
  }

  private dims(name: string): readonly number[] {
    const dims = this.environment.dims(this.graph, name);
    if (dims === null) throw new Blocked(`the shape of '${name}' is not known`);
    if (elementCount(dims) > MOST_ELEMENTS) throw new Blocked(`'${name}' is too large to be followed`);
    return dims;
  }

  private need(name: string, factors: Float32Array): void {
    const before = this.needs.get(name);
    if (before === undefined) this.needs.set(name, factors);
    else factors.forEach((factor, i) => meet(before, i, factor, name));
  }

  /** What the value needs once its other readers are heard. */
  private settle(name: string): Float32Array {
    const own = this.needs.get(name) ?? new Float32Array(elementCount(this.dims(name))).fill(NaN);
    const stay = (index?: ArrayLike<number>): void => {
      const count = index?.length ?? own.length;
      for (let i = 0; i < count; i++) meet(own, index?.[i] ?? i, 1, name);
    };
    if (this.graph.isOutput(name) || this.kept.has(name)) stay();
    for (const use of this.graph.uses(name)) {
      if (this.passed.has(use) || isOp(use, 'Shape', 'Size')) continue;
      stay(isOp(use, 'Slice', 'Gather') && use.inputs[0] === name ? this.elements(use) : undefined);
    }
    return own;
  }

  /** An operand whose element `index[i]` is what element `i` of the output comes from. */
  private place(name: string, factors: Float32Array, index: ArrayLike<number> | null): void {
    const count = elementCount(this.dims(name));
    if (index === null) {
      if (factors.length !== count) throw new Blocked(`the size of '${name}' is not known`);
      this.need(name, factors.slice());
      return;
    }
    const own = new Float32Array(count).fill(NaN);
    for (let i = 0; i < factors.length; i++) meet(own, index[i]!, factors[i]!, name);
    this.need(name, own);
  }

  private keep(...names: readonly (string | undefined)[]): void {
    for (const name of names) if (name !== undefined && name !== '') this.kept.add(name);
  }

  /** Hands the factors of a node's outputs to its inputs: each rule is an identity of the operator. */
  private through(node: GraphNode, outputs: readonly (Float32Array | null)[]): void {
    const blocked = new Blocked(`'${nodeLabel(node)}' (${node.opType}) stands between`);
    const [a, b] = node.inputs as [string, string];
    const factors = outputs[0]!;
    if (node.opType === 'RotaryEmbedding' && ['', 'com.microsoft'].includes(node.domain)) {
      this.rotate(node, factors);
      return;
    }
    if (node.domain !== '' || node.subgraphs.length > 0) throw blocked;
    switch (node.opType) {
      case 'Identity':
      case 'Reshape':
      case 'Squeeze':
      case 'Unsqueeze':
      case 'Flatten':
      case 'Neg':
        this.place(a, factors, null);
        this.keep(...node.inputs.slice(1));
        return;
      case 'Transpose':
      case 'Slice':
      case 'Gather':
      case 'Expand':
        this.place(a, factors, this.elements(node) ?? raise(blocked));
        this.keep(...node.inputs.slice(1));
        return;
      case 'Split':
        this.split(node, outputs);
        return;
      case 'Concat':
        this.concat(node, factors);
        return;
      case 'Add':
      case 'Sub':
        // f (a + b) = f a + f b
        for (const input of [a, b]) this.place(input, factors, this.broadcast(input, node));
        return;
      case 'Mul':
      case 'Div': {
        // f (a c) = (f a) c
        const data = node.opType === 'Div' ? a : (this.multiplied(a, b) ?? raise(blocked));
        this.place(data, factors, this.broadcast(data, node));
        this.keep(data === a ? b : a);
        return;
      }
      case 'MatMul':
        this.columns(node, factors, false);
        return;
      case 'Gemm':
        this.columns(node, factors, intAttribute(node, 'transB', 0) === 1);
        if (node.inputs[2]) this.place(node.inputs[2], factors, this.broadcast(node.inputs[2], node));
        return;
      default:
        throw blocked;
    }
  }

  /** A rotation mixes the channels of one head: it lets through what is the same for all of them. */
  private rotate(node: GraphNode, factors: Float32Array): void {
    const [input, ...others] = node.inputs as [string, ...string[]];
    const dims = this.dims(input);
    const heads = dims.length === 4 ? 1 : intAttribute(node, 'num_heads', 0);
    const size = dims.at(-1)! / heads;
    if (!Number.isInteger(size)) throw new Blocked(`the heads of '${nodeLabel(node)}' are not known`);
    if (!factors.every((factor, i) => factor === factors[i - (i % size)]))
      throw new Blocked(`'${nodeLabel(node)}' mixes channels that are scaled differently`);
    this.place(input, factors, null);
    this.keep(...others);
  }

  private broadcast(input: string, node: GraphNode): Int32Array {
    return broadcastIndex(this.dims(input), this.dims(node.outputs[0]!));
  }

  /** The operand of a Mul that holds the data, where the other is a constant or lacks some of its axes. */
  private multiplied(a: string, b: string): string | null {
    if (a === b) return null;
    const [isA, isB] = [a, b].map((name) => this.knowledge.isConstant(this.graph, name));
    if (isA !== isB) return isA ? b : a;
    const [sizeA, sizeB] = [elementCount(this.dims(a)), elementCount(this.dims(b))];
    return sizeA === sizeB ? null : sizeA > sizeB ? a : b;
  }

  /** Rows of a product keep, its columns scale with those of the weight. */
  private columns(node: GraphNode, factors: Float32Array, transposed: boolean): void {
    const [data, weight] = node.inputs as [string, string];
    const dims = this.dims(weight);
    if (
      dims.length !== 2 ||
      data === weight ||
      !this.knowledge.isConstant(this.graph, weight) ||
      this.knowledge.isConstant(this.graph, data)
    )
      throw new Blocked(`'${nodeLabel(node)}' (${node.opType}) is no product with a weight`);
    this.operand.allow(weight);
    const count = dims[transposed ? 0 : 1]!;
    const own = new Float32Array(count).fill(NaN);
    factors.forEach((factor, i) => meet(own, i % count, factor, node.outputs[0]!));
    const inner = dims[transposed ? 1 : 0]!;
    const spread = new Float32Array(count * inner);
    for (let row = 0; row < dims[0]!; row++) {
      if (transposed) spread.fill(own[row]!, row * inner, (row + 1) * inner);
      else spread.set(own, row * count);
    }
    this.need(weight, spread);
    this.keep(data);
  }

  private split(node: GraphNode, outputs: readonly (Float32Array | null)[]): void {
    const [input, given] = node.inputs as [string, string | undefined];
    const dims = this.dims(input);
    const axis = axisAttribute(node, 0, dims.length);
    const sizes = given ? this.environment.value(this.graph, given) : null;
    if (given && sizes === null) throw new Blocked(`'${nodeLabel(node)}' splits into unknown parts`);
    let start = 0;
    splitSizes(node, dims[axis]!, sizes, node.outputs.length).forEach((size, part) => {
      const factors = outputs[part];
      const at = { axis, start, step: 1, count: size };
      if (factors) this.place(input, factors, viewIndex(dims, [at]));
      start += size;
    });
    this.keep(given);
  }

  private concat(node: GraphNode, factors: Float32Array): void {
    const dims = this.dims(node.outputs[0]!);
    const axis = axisAttribute(node, 0, dims.length);
    let start = 0;
    for (const input of node.inputs) {
      const count = this.dims(input)[axis]!;
      const index = viewIndex(dims, [{ axis, start, step: 1, count }]);
      this.place(
        input,
        Float32Array.from(index, (at) => factors[at]!),
        null,
      );
      start += count;
    }
  }

  /** For each element of a layout node's output, the element of its first input; `undefined` where that is not known. */
  private elements(node: GraphNode): ArrayLike<number> | undefined {
    const [input, second] = node.inputs as [string, string | undefined];
    const dims = this.dims(input);
    const value = (name: string | undefined): ReturnType<Environment['value']> =>
      name ? this.environment.value(this.graph, name) : null;
    switch (node.opType) {
      case 'Transpose': {
        const perm = permutation(node, dims.length);
        const own = strides(dims);
        return gatherView(
          iota(dims),
          perm.map((axis) => dims[axis]!),
          perm.map((axis) => own[axis]!),
          0,
        );
      }
      case 'Expand':
        return broadcastIndex(dims, this.dims(node.outputs[0]!));
      case 'Slice': {
        const inputs = node.inputs.map(value);
        if (node.inputs.some((name, at) => at > 0 && name !== '' && !inputs[at])) return undefined;
        const slices = sliceAxes(node, dims, inputs);
        return slices === null ? undefined : viewIndex(dims, slices);
      }
      case 'Gather': {
        const indices = value(second);
        if (indices === null || indices.dims.length > 1) return undefined;
        const axis = checkedAxis(node, intAttribute(node, 'axis', 0), dims.length);
        const inner = strides(dims)[axis]!;
        const outer = elementCount(dims.slice(0, axis));
        const index: number[] = [];
        for (let o = 0; o < outer; o++)
          for (const at of indices.data) {
            const place = at < 0 ? at + dims[axis]! : at;
            for (let i = 0; i < inner; i++) index.push((o * dims[axis]! + place) * inner + i);
          }
        return index;
      }
      default:
        return undefined;
    }
  }
}

function raise(error: Error): never {
  throw error;
}

/** Some element has to be multiplied by another number than 1. */
function changes(factors: Float32Array): boolean {
  return factors.some((factor) => factor !== 1 && !Number.isNaN(factor));
}

/** Where nobody cares nothing changes. */
function filled(factors: Float32Array): Float32Array {
  return factors.map((factor) => (Number.isNaN(factor) ? 1 : factor));
}

function meet(own: Float32Array, at: number, factor: number, name: string): void {
  if (Number.isNaN(factor)) return;
  if (Number.isNaN(own[at]!)) own[at] = factor;
  else if (own[at] !== factor) throw new Blocked(`'${name}' is shared by what has to be scaled differently`);
}

function iota(dims: readonly number[]): Float64Array {
  return Float64Array.from({ length: elementCount(dims) }, (_, i) => i);
}

/** Elements of a tensor that a slice of it holds, in the slice's order. */
function viewIndex(
  dims: readonly number[],
  slices: readonly {
    readonly axis: number;
    readonly start: number;
    readonly step: number;
    readonly count: number;
  }[],
): Float64Array {
  const step = strides(dims);
  const sizes = [...dims];
  let offset = 0;
  for (const slice of slices) {
    offset += slice.start * step[slice.axis]!;
    sizes[slice.axis] = slice.count;
    step[slice.axis]! *= slice.step;
  }
  return gatherView(iota(dims), sizes, step, offset);
}
