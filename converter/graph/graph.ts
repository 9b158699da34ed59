/**
 * A graph of a model as it is read: nodes in file order, values by name, producers and uses, nested bodies with the outer
 * scope they see. Spans into the source stay with everything, so that the writer can copy what was not touched.
 */
import { ModelFormatError } from '../onnx/error.js';
import type { Span, Window } from '../onnx/source.js';
import { readTensor, type StoredTensor } from '../onnx/tensor.js';
import type { Cursor } from '../onnx/wire.js';
import { nodeLabel, type Attribute, type GraphNode } from './node.js';

/** A dimension: a size, a symbol's name, or `null` when nothing is said. */
export type DeclaredDim = number | string | null;

export interface ValueInfo {
  readonly name: string;
  /** 0 where the value is no tensor. */
  readonly dataType: number;
  /** `null` when even the rank is open. */
  readonly dims: readonly DeclaredDim[] | null;
}

/** One field of the GraphProto (or FunctionProto) in file order. */
export interface GraphField {
  readonly field: number;
  readonly span: Span;
  /** First byte of the field's tag. */
  readonly fieldStart: number;
  /** Name of the initializer or value info in the field, where it is one. */
  readonly name: string;
  readonly node: GraphNode | null;
}

/** Bodies nested deeper than this are refused as hostile. */
const MAX_DEPTH = 32;

export class Graph {
  readonly fields: GraphField[] = [];
  readonly nodes: GraphNode[] = [];
  readonly inputs: ValueInfo[] = [];
  readonly outputs: ValueInfo[] = [];
  readonly initializers = new Map<string, StoredTensor>();
  readonly valueInfo = new Map<string, ValueInfo>();
  private readonly producerOf = new Map<string, GraphNode>();
  private readonly usesOf = new Map<string, GraphNode[]>();
  private readonly localNames = new Set<string>();
  private readonly outputNames = new Set<string>();
  private order: readonly GraphNode[] | null = null;
  private ranks: Map<GraphNode, number> | null = null;
  name = '';
  /** The node whose body this is. */
  owner: GraphNode | null = null;

  constructor(
    readonly window: Window,
    readonly span: Span,
    readonly parent: Graph | null,
    /** Names the place in messages: '' for the main graph. */
    readonly scope: string,
    readonly depth: number,
  ) {
    if (depth > MAX_DEPTH)
      throw new ModelFormatError(`graphs are nested deeper than ${MAX_DEPTH}`, span.start);
  }

  /** The node that yields the value in this graph; `undefined` for inputs, initializers and outer values. */
  producer(name: string): GraphNode | undefined {
    return this.producerOf.get(name);
  }

  /** Nodes of this graph that read the value, themselves or in a nested body; each node once. */
  uses(name: string): readonly GraphNode[] {
    return this.usesOf.get(name) ?? [];
  }

  isOutput(name: string): boolean {
    return this.outputNames.has(name);
  }

  /** The name stands for a value of this very graph: an input, an initializer or what a node yields. */
  defines(name: string): boolean {
    return this.localNames.has(name);
  }

  /** The graph that defines the name, walking outwards. */
  definer(name: string): Graph | null {
    if (this.localNames.has(name)) return this;
    return this.parent === null ? null : this.parent.definer(name);
  }

  /** All names that are taken in this graph and its bodies. */
  *names(): Iterable<string> {
    yield* this.localNames;
    yield* this.usesOf.keys();
    for (const node of this.nodes) for (const body of node.subgraphs) yield* body.names();
  }

  addField(field: GraphField): void {
    this.fields.push(field);
  }

  addNode(node: GraphNode): void {
    this.nodes.push(node);
    for (const output of node.outputs) {
      if (output === '') continue;
      if (this.producerOf.has(output)) {
        throw new ModelFormatError(
          `value '${output}' is produced by two nodes of one graph`,
          node.span.start,
        );
      }
      this.producerOf.set(output, node);
      this.localNames.add(output);
    }
    const read = new Set(node.inputs);
    for (const body of node.subgraphs) {
      body.owner = node;
      for (const name of body.outerNames()) read.add(name);
    }
    for (const name of read) {
      if (name === '') continue;
      const uses = this.usesOf.get(name);
      if (uses === undefined) this.usesOf.set(name, [node]);
      else uses.push(node);
    }
  }

  addInput(info: ValueInfo): void {
    this.inputs.push(info);
    this.localNames.add(info.name);
  }

  addOutput(info: ValueInfo): void {
    this.outputs.push(info);
    this.outputNames.add(info.name);
  }

  addInitializer(tensor: StoredTensor): void {
    this.initializers.set(tensor.name, tensor);
    this.localNames.add(tensor.name);
  }

  /**
   * Nodes so that producers come before users. The file should hold them in that order; some tools append nodes at the end.
   * A node on a cycle keeps its place.
   */
  ordered(): readonly GraphNode[] {
    this.order ??= this.isSorted() ? this.nodes : this.sorted();
    return this.order;
  }

  /** Place of a node in {@link ordered}. */
  rank(node: GraphNode): number {
    if (this.ordered() === this.nodes) return node.index;
    this.ranks ??= new Map(this.ordered().map((entry, i) => [entry, i]));
    return this.ranks.get(node) ?? node.index;
  }

  private isSorted(): boolean {
    return this.nodes.every((node) => this.sources(node).every((source) => source.index < node.index));
  }

  private sources(node: GraphNode): GraphNode[] {
    const names =
      node.subgraphs.length === 0
        ? node.inputs
        : [...node.inputs, ...node.subgraphs.flatMap((body) => body.outerNames())];
    return names.flatMap((name) => this.producerOf.get(name) ?? []);
  }

  private sorted(): GraphNode[] {
    const out: GraphNode[] = [];
    const state = new Map<GraphNode, 'open' | 'done'>();
    for (const root of this.nodes) {
      const stack = [root];
      while (stack.length > 0) {
        const node = stack.at(-1)!;
        if (state.get(node) === undefined) {
          state.set(node, 'open');
          for (const source of this.sources(node)) if (state.get(source) === undefined) stack.push(source);
        } else {
          stack.pop();
          if (state.get(node) === 'open') {
            state.set(node, 'done');
            out.push(node);
          }
        }
      }
    }
    return out;
  }

  /** Names that the graph takes from around it. */
  private outerNames(): string[] {
    const outer: string[] = [];
    for (const name of this.usesOf.keys()) if (!this.localNames.has(name)) outer.push(name);
    for (const name of this.outputNames) if (!this.localNames.has(name)) outer.push(name);
    return outer;
  }
}

export function readGraph(cursor: Cursor, span: Span, parent: Graph | null, scope: string): Graph {
  const graph = new Graph(cursor.window, span, parent, scope, parent === null ? 0 : parent.depth + 1);
  while (cursor.next()) {
    let node: GraphNode | null = null;
    let name = '';
    if (cursor.field === 1) {
      node = readNode(cursor.message(), cursor.span, graph);
      graph.addNode(node);
    } else if (cursor.field === 2) graph.name = cursor.text();
    else if (cursor.field === 5) {
      const tensor = readTensor(cursor.message(), cursor.span);
      graph.addInitializer(tensor);
      name = tensor.name;
    } else if (cursor.field === 15) name = sparseName(cursor.message());
    else if (cursor.field >= 11 && cursor.field <= 13) {
      const info = readValueInfo(cursor.message());
      name = info.name;
      if (cursor.field === 11) graph.addInput(info);
      else if (cursor.field === 12) graph.addOutput(info);
      else graph.valueInfo.set(name, info);
    }
    graph.addField({ field: cursor.field, span: cursor.span, fieldStart: cursor.fieldStart, name, node });
  }
  return graph;
}

function sparseName(cursor: Cursor): string {
  while (cursor.next()) if (cursor.field === 1) return readTensor(cursor.message(), cursor.span).name;
  return '';
}

/** Reads a node into `graph`; bodies in its attributes become its subgraphs. */
export function readNode(cursor: Cursor, span: Span, graph: Graph): GraphNode {
  const inputs: string[] = [];
  const outputs: string[] = [];
  const attributes: Attribute[] = [];
  const bodies: { span: Span; cursor: Cursor; attribute: string }[] = [];
  let name = '';
  let opType = '';
  let domain = '';
  while (cursor.next()) {
    switch (cursor.field) {
      case 1:
        inputs.push(cursor.text());
        break;
      case 2:
        outputs.push(cursor.text());
        break;
      case 3:
        name = cursor.text();
        break;
      case 4:
        opType = cursor.text();
        break;
      case 5: {
        const entry = cursor.message();
        let attributeName = '';
        while (entry.next()) {
          if (entry.field === 1) attributeName = entry.text();
          else if (entry.field === 6 || entry.field === 11) {
            bodies.push({ span: entry.span, cursor: entry.message(), attribute: attributeName });
          }
        }
        attributes.push({ name: attributeName, span: cursor.span });
        break;
      }
      case 7:
        domain = cursor.text();
        break;
    }
  }
  const subgraphs: Graph[] = [];
  const node: GraphNode = {
    index: graph.nodes.length,
    graph,
    name,
    opType,
    domain: domain === 'ai.onnx' ? '' : domain,
    inputs,
    outputs,
    attributes,
    subgraphs,
    span,
  };
  for (const body of bodies) {
    const scope = [graph.scope, `${nodeLabel(node)}.${body.attribute}`]
      .filter((part) => part !== '')
      .join('/');
    subgraphs.push(readGraph(body.cursor, body.span, graph, scope));
  }
  return node;
}

export function readValueInfo(cursor: Cursor): ValueInfo {
  let name = '';
  let dataType = 0;
  let dims: DeclaredDim[] | null = null;
  while (cursor.next()) {
    if (cursor.field === 1) name = cursor.text();
    else if (cursor.field === 2) {
      const type = cursor.message();
      while (type.next()) {
        if (type.field !== 1) continue;
        const tensor = type.message();
        while (tensor.next()) {
          if (tensor.field === 1) dataType = tensor.integer();
          else if (tensor.field === 2) dims = readShape(tensor.message());
        }
      }
    }
  }
  return { name, dataType, dims };
}

function readShape(cursor: Cursor): DeclaredDim[] {
  const dims: DeclaredDim[] = [];
  while (cursor.next()) {
    if (cursor.field !== 1) continue;
    const dim = cursor.message();
    let value: DeclaredDim = null;
    while (dim.next()) {
      if (dim.field === 1) value = dim.integer();
      else if (dim.field === 2) value = dim.text();
    }
    dims.push(value === '' ? null : value);
  }
  return dims;
}
