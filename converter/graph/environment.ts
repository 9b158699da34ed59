/**
 * What is known about the values of a model: their data types, shapes, and the numbers of those that depend on nothing but
 * constants and shapes. A model with symbolic dimensions is worked out once for each of several choices of the symbols;
 * sizes that agree in every choice are taken as equal. The choices use primes, so that products and sums stay apart.
 */
import type { Model } from '../onnx/model.js';
import { DataType, elementCount, tensorNumbers, type StoredTensor } from '../onnx/tensor.js';
import { canEvaluate, evaluateNode, MAX_ELEMENTS } from './evaluate.js';
import type { Graph, ValueInfo } from './graph.js';
import { attribute, intAttribute, type GraphNode } from './node.js';
import { numeric, type NumericTensor } from './numeric.js';
import { FRESH_BASE, type Dims, type ShapeContext } from './shape-rule.js';
import { inferShapes } from './shapes.js';

/** Values up to this many elements are worked out in passing; larger ones when asked for. */
const EAGER_ELEMENTS = 4096;

export interface Mismatch {
  readonly a: number;
  readonly b: number;
  readonly node: GraphNode;
}

/** One choice of the symbols, worked out for the whole model. */
export class Environment {
  readonly mismatches: Mismatch[] = [];
  private readonly shapes = new Map<Graph, Map<string, Dims>>();
  private readonly values = new Map<Graph, Map<string, NumericTensor | null>>();
  /** Values that depend on model inputs or on operators that are not worked out. */
  private readonly runtime = new Map<Graph, Set<string>>();
  private nextFresh = FRESH_BASE;

  constructor(
    readonly model: Model,
    /** Size of each symbolic dimension, by its name or by `value#axis`. */
    readonly symbols: ReadonlyMap<string, number>,
    private readonly types: Types,
    private readonly opset: number,
  ) {}

  /** Shape of a value as seen from `graph`. */
  dims(graph: Graph, name: string): Dims | null {
    for (let scope: Graph | null = graph; scope !== null; scope = scope.parent) {
      const dims = this.shapes.get(scope)?.get(name);
      if (dims !== undefined) return dims;
      if (scope.parent === null || scope.defines(name)) return null;
    }
    return null;
  }

  /** The numbers of a value, where they follow from constants and shapes; `null` for run-time values and large ones. */
  value(graph: Graph, name: string): NumericTensor | null {
    return this.evaluate(graph, name, null);
  }

  /** The numbers of a value when the values in `given` are replaced by the numbers there. */
  evaluate(
    graph: Graph,
    name: string,
    given: ReadonlyMap<string, NumericTensor> | null,
  ): NumericTensor | null {
    const direct = given?.get(name);
    if (direct !== undefined) return direct;
    if (given === null && this.isRuntime(graph, name)) return null;
    const memo = given === null ? null : new Map<string, NumericTensor | null>(given);
    const cone = this.cone(graph, name, memo);
    if (cone === null) return null;
    for (const node of cone) this.compute(node, memo, MAX_ELEMENTS);
    return this.lookup(graph, name, memo) ?? null;
  }

  /** A size that equals no other. */
  fresh(): number {
    return this.nextFresh++;
  }

  private isRuntime(graph: Graph, name: string): boolean {
    if (this.runtime.get(graph)?.has(name) === true) return true;
    const home = graph.definer(name);
    return home === null || (home !== graph && this.runtime.get(home)?.has(name) === true);
  }

  /** Notes that the node's outputs are not known before the model runs, where that is so. */
  private markRuntime(node: GraphNode): boolean {
    if (
      node.domain === '' &&
      (node.opType === 'Shape' || node.opType === 'Size' || node.opType === 'Constant')
    )
      return false;
    const isWorkedOut = canEvaluate(node) || (node.domain === '' && node.opType === 'ConstantOfShape');
    if (isWorkedOut && !node.inputs.some((name) => name !== '' && this.isRuntime(node.graph, name)))
      return false;
    const names = setOf(this.runtime, node.graph);
    for (const name of node.outputs) names.add(name);
    return true;
  }

  infer(graph: Graph): void {
    const shapes = this.shapesOf(graph);
    for (const tensor of graph.initializers.values()) shapes.set(tensor.name, tensor.dims);
    for (const input of graph.inputs) {
      if (!graph.initializers.has(input.name)) setOf(this.runtime, graph).add(input.name);
      if (graph.initializers.has(input.name) || shapes.has(input.name)) continue;
      const dims = this.declared(input);
      if (dims !== null) shapes.set(input.name, dims);
    }
    for (const node of graph.ordered()) this.inferNode(node, shapes);
  }

  private inferNode(node: GraphNode, shapes: Map<string, Dims>): void {
    const { graph } = node;
    let inferred: readonly (Dims | null)[] | null = null;
    if (node.opType === 'Constant' && node.domain === '') {
      const constant = this.constantTensor(node);
      if (constant !== null) inferred = [constant];
    } else if (node.subgraphs.length > 0) inferred = this.inferBodies(node);
    else {
      const context = new NodeContext(this, node, this.opset);
      inferred = inferShapes(context);
    }
    node.outputs.forEach((name, i) => {
      if (name === '') return;
      const dims = inferred?.[i] ?? this.declaredShape(graph, name);
      if (dims !== null) shapes.set(name, dims);
    });
    if (!this.markRuntime(node)) this.compute(node, null, EAGER_ELEMENTS);
  }

  private inferBodies(node: GraphNode): (Dims | null)[] {
    for (const body of node.subgraphs) {
      const shapes = this.shapesOf(body);
      if (node.opType === 'Loop') {
        body.inputs.forEach((input, i) => {
          const outer = i < 2 ? '' : (node.inputs[i] ?? '');
          const dims = i < 2 ? [] : outer === '' ? null : this.dims(node.graph, outer);
          if (dims !== null) shapes.set(input.name, dims);
        });
      }
      this.infer(body);
    }
    const results = node.subgraphs.map((body) => body.outputs.map((output) => this.dims(body, output.name)));
    if (node.opType === 'If') {
      const condition = this.value(node.graph, node.inputs[0] ?? '')?.data[0];
      if (condition !== undefined) {
        const name = condition !== 0 ? 'then_branch' : 'else_branch';
        const taken = node.attributes
          .filter((entry) => entry.name.endsWith('_branch'))
          .findIndex((entry) => entry.name === name);
        if (results[taken] !== undefined) return results[taken];
      }
      return node.outputs.map((_, i) => {
        const [a, b] = [results[0]?.[i] ?? null, results[1]?.[i] ?? null];
        if (a === null || b === null) return a ?? b;
        if (a.length !== b.length) return null;
        return a.map((dim, axis) => (dim === b[axis] ? dim : this.nextFresh++));
      });
    }
    if (node.opType === 'Loop') {
      const carried = node.inputs.length - 2;
      return node.outputs.map((_, i) => {
        const dims = results[0]?.[i + 1] ?? null;
        return dims === null || i < carried ? dims : [this.nextFresh++, ...dims];
      });
    }
    return node.outputs.map(() => null);
  }

  /** Nodes, in order, whose values are needed for `name` and not known yet; `null` when a run-time value is among the sources. */
  private cone(
    graph: Graph,
    name: string,
    memo: ReadonlyMap<string, NumericTensor | null> | null,
  ): GraphNode[] | null {
    const nodes = new Set<GraphNode>();
    const stack = [{ graph, name }];
    while (stack.length > 0) {
      const next = stack.pop()!;
      const known = this.lookup(next.graph, next.name, memo);
      if (known === null) return null;
      if (known !== undefined) continue;
      const home = next.graph.definer(next.name);
      const node = home?.producer(next.name);
      if (node === undefined) return null;
      if (nodes.has(node)) continue;
      if (node.opType === 'Shape' || node.opType === 'Size' || node.opType === 'Constant') {
        nodes.add(node);
        continue;
      }
      if (!canEvaluate(node) && node.opType !== 'ConstantOfShape') return null;
      nodes.add(node);
      for (const input of node.inputs) if (input !== '') stack.push({ graph: node.graph, name: input });
    }
    return [...nodes].sort((a, b) =>
      a.graph === b.graph ? a.graph.rank(a) - b.graph.rank(b) : a.graph.depth - b.graph.depth,
    );
  }

  /** `undefined`: not worked out yet; `null`: cannot be known. */
  private lookup(
    graph: Graph,
    name: string,
    memo: ReadonlyMap<string, NumericTensor | null> | null,
  ): NumericTensor | null | undefined {
    const replaced = memo?.get(name);
    if (replaced !== undefined) return replaced;
    const home = graph.definer(name);
    if (home === null) return null;
    const values = this.valuesOf(home);
    const known = values.get(name);
    if (known !== undefined) return known;
    const stored = home.initializers.get(name);
    if (stored === undefined) return home.producer(name) === undefined ? null : undefined;
    const isOverridable = home.inputs.some((input) => input.name === name) && this.model.irVersion >= 4;
    const value = isOverridable ? null : this.load(stored);
    values.set(name, value);
    return value;
  }

  private load(stored: StoredTensor): NumericTensor | null {
    if (elementCount(stored.dims) > MAX_ELEMENTS) return null;
    const data = tensorNumbers(stored, this.model.source, this.model.external);
    return data === null ? null : numeric(stored.dataType, stored.dims, data);
  }

  private compute(node: GraphNode, memo: Map<string, NumericTensor | null> | null, limit: number): void {
    const target = memo ?? this.valuesOf(node.graph);
    const store = (results: readonly (NumericTensor | null)[]): void =>
      node.outputs.forEach((name, i) => {
        const result = results[i];
        if (name !== '' && result !== undefined && !target.has(name)) target.set(name, result);
      });
    if (node.domain !== '') return;
    if (node.opType === 'Constant') {
      const tensor = this.constantValue(node, limit);
      if (tensor !== undefined) store([tensor]);
      return;
    }
    if (node.opType === 'Shape' || node.opType === 'Size') {
      const dims = this.dims(node.graph, node.inputs[0] ?? '');
      if (dims === null) return;
      if (node.opType === 'Size') store([numeric(DataType.int64, [], [elementCount(dims)])]);
      else {
        const part = this.shapeSlice(node, dims);
        store([numeric(DataType.int64, [part.length], part)]);
      }
      return;
    }
    const outputDims = this.dims(node.graph, node.outputs.find((name) => name !== '') ?? '');
    if (outputDims !== null && elementCount(outputDims) > limit) return;
    if (node.opType === 'ConstantOfShape') {
      const shape = this.lookup(node.graph, node.inputs[0] ?? '', memo);
      if (!shape) return;
      const dims = Array.from(shape.data);
      if (!(elementCount(dims) <= limit)) return;
      const fill = attribute(node, 'value')?.tensor ?? null;
      const value = fill === null ? null : tensorNumbers(fill, this.model.source, this.model.external);
      const data = new Float64Array(elementCount(dims)).fill(value?.[0] ?? 0);
      store([numeric(fill?.dataType ?? DataType.float, dims, data)]);
      return;
    }
    if (!canEvaluate(node)) return;
    const inputs: (NumericTensor | null)[] = [];
    for (const name of node.inputs) {
      if (name === '') {
        inputs.push(null);
        continue;
      }
      const isStored = limit === EAGER_ELEMENTS && this.isLarge(node.graph, name);
      const value = isStored ? null : this.lookup(node.graph, name, memo);
      if (!value) return;
      inputs.push(value);
    }
    const results = evaluateNode({ node, opset: this.opset, inputs });
    if (results !== null) store(results);
    else if (memo === null && limit === MAX_ELEMENTS) store(node.outputs.map(() => null));
  }

  private isLarge(graph: Graph, name: string): boolean {
    const dims = this.dims(graph, name);
    return dims === null || elementCount(dims) > EAGER_ELEMENTS;
  }

  private shapeSlice(node: GraphNode, dims: Dims): Dims {
    const start = intAttribute(node, 'start', 0);
    const end = intAttribute(node, 'end', dims.length);
    return dims.slice(start, end);
  }

  private constantTensor(node: GraphNode): Dims | null {
    const tensor = attribute(node, 'value')?.tensor;
    if (tensor) return tensor.dims;
    for (const name of ['value_float', 'value_int']) if (attribute(node, name) !== null) return [];
    const list = attribute(node, 'value_ints')?.ints ?? attribute(node, 'value_floats')?.floats;
    return list === undefined ? null : [list.length];
  }

  private constantValue(node: GraphNode, limit: number): NumericTensor | null | undefined {
    const stored = attribute(node, 'value')?.tensor;
    if (stored) return elementCount(stored.dims) > limit ? undefined : this.load(stored);
    const float = attribute(node, 'value_float')?.float;
    if (float !== undefined && float !== null) return numeric(DataType.float, [], [float]);
    const int = attribute(node, 'value_int')?.int;
    if (int !== undefined && int !== null) return numeric(DataType.int64, [], [int]);
    const ints = attribute(node, 'value_ints')?.ints;
    if (ints !== undefined) return numeric(DataType.int64, [ints.length], ints);
    const floats = attribute(node, 'value_floats')?.floats;
    return floats === undefined ? null : numeric(DataType.float, [floats.length], floats);
  }

  private declaredShape(graph: Graph, name: string): Dims | null {
    const info = graph.valueInfo.get(name) ?? graph.outputs.find((output) => output.name === name);
    return info === undefined ? null : this.declared(info);
  }

  private declared(info: ValueInfo): Dims | null {
    if (info.dims === null) return null;
    return info.dims.map((dim, axis) => {
      if (typeof dim === 'number') return dim >= 0 ? dim : this.nextFresh++;
      return this.symbols.get(dim ?? `${info.name}#${axis}`) ?? this.nextFresh++;
    });
  }

  private shapesOf(graph: Graph): Map<string, Dims> {
    return entryOf(this.shapes, graph);
  }

  private valuesOf(graph: Graph): Map<string, NumericTensor | null> {
    return entryOf(this.values, graph);
  }

  /** Data type of a value (0: unknown). */
  type(graph: Graph, name: string): number {
    return this.types.of(graph, name);
  }
}

class NodeContext implements ShapeContext {
  constructor(
    private readonly environment: Environment,
    readonly node: GraphNode,
    readonly opset: number,
  ) {}

  dims(input: number): Dims | null {
    const name = this.node.inputs[input];
    return name === undefined || name === '' ? null : this.environment.dims(this.node.graph, name);
  }

  value(input: number): NumericTensor | null {
    const name = this.node.inputs[input];
    return name === undefined || name === '' ? null : this.environment.value(this.node.graph, name);
  }

  fresh(): number {
    return this.environment.fresh();
  }

  mismatch(a: number, b: number): void {
    this.environment.mismatches.push({ a, b, node: this.node });
  }
}

function setOf(sets: Map<Graph, Set<string>>, graph: Graph): Set<string> {
  let found = sets.get(graph);
  if (found === undefined) {
    found = new Set();
    sets.set(graph, found);
  }
  return found;
}

export function entryOf<T>(maps: Map<Graph, Map<string, T>>, graph: Graph): Map<string, T> {
  let found = maps.get(graph);
  if (found === undefined) {
    found = new Map();
    maps.set(graph, found);
  }
  return found;
}

const RESULT_TYPES: Readonly<Record<string, number>> = {
  ...Object.fromEntries(
    'And Or Xor Not Equal Greater GreaterOrEqual Less LessOrEqual IsNaN IsInf'
      .split(' ')
      .map((op) => [op, DataType.bool]),
  ),
  ...Object.fromEntries('Shape Size ArgMax ArgMin NonZero'.split(' ').map((op) => [op, DataType.int64])),
  MatMulInteger: DataType.int32,
  ConvInteger: DataType.int32,
};

/** Data types of all values, which do not depend on sizes. */
export class Types {
  private readonly byGraph = new Map<Graph, Map<string, number>>();

  of(graph: Graph, name: string): number {
    const home = graph.definer(name);
    return home === null ? 0 : (this.byGraph.get(home)?.get(name) ?? 0);
  }

  infer(graph: Graph): void {
    const types = entryOf(this.byGraph, graph);
    for (const tensor of graph.initializers.values()) types.set(tensor.name, tensor.dataType);
    for (const input of graph.inputs) if (!types.has(input.name)) types.set(input.name, input.dataType);
    for (const node of graph.ordered()) {
      for (const body of node.subgraphs) this.infer(body);
      node.outputs.forEach((name, i) => {
        if (name === '') return;
        const declared = graph.valueInfo.get(name)?.dataType ?? 0;
        types.set(name, declared !== 0 ? declared : this.ofOutput(node, i));
      });
    }
  }

  private ofOutput(node: GraphNode, output: number): number {
    const input = (at: number): number => this.of(node.graph, node.inputs[at] ?? '');
    if (node.subgraphs.length > 0) {
      const body = node.subgraphs[0]!;
      const name = body.outputs[node.opType === 'Loop' ? output + 1 : output]?.name ?? '';
      return this.of(body, name);
    }
    if (node.domain === '') {
      const fixed = RESULT_TYPES[node.opType];
      if (fixed !== undefined) return fixed;
      switch (node.opType) {
        case 'Cast':
          return intAttribute(node, 'to', 0);
        case 'CastLike':
        case 'Where':
        case 'DequantizeLinear':
          return input(1);
        case 'Constant': {
          const tensor = attribute(node, 'value')?.tensor;
          if (tensor) return tensor.dataType;
          return attribute(node, 'value_float') !== null || attribute(node, 'value_floats') !== null
            ? DataType.float
            : DataType.int64;
        }
        case 'ConstantOfShape':
          return attribute(node, 'value')?.tensor?.dataType ?? DataType.float;
        case 'OneHot':
          return input(2);
        case 'EyeLike':
          return intAttribute(node, 'dtype', input(0));
        case 'TopK':
          return output === 1 ? DataType.int64 : input(0);
        case 'Dropout':
          return output === 1 ? DataType.bool : input(0);
        case 'QuantizeLinear':
          return input(2) || DataType.uint8;
        case 'DynamicQuantizeLinear':
          return output === 1 ? DataType.float : DataType.uint8;
        case 'RandomNormal':
        case 'RandomUniform':
          return intAttribute(node, 'dtype', DataType.float);
      }
    }
    if (node.domain === 'com.microsoft') {
      if (node.opType === 'MatMulIntegerToFloat' || node.opType === 'DynamicQuantizeMatMul')
        return DataType.float;
      if (node.opType === 'EmbedLayerNormalization') return input(2);
    }
    return input(0);
  }
}
