/** An ONNX model, opened for reading: its graphs, functions and operator sets, with the span of every part. */
import { Graph, readGraph, readNode, type ValueInfo } from '../graph/graph.js';
import type { GraphNode } from '../graph/node.js';
import { ModelFormatError } from './error.js';
import { MemorySource, Window, type ByteSource, type ExternalData, type Span } from './source.js';
import { Cursor } from './wire.js';

export interface ModelField {
  readonly field: number;
  readonly fieldStart: number;
  readonly span: Span;
}

/** A model-local function; its body is read like a graph whose values have no declared types. */
export interface ModelFunction {
  readonly name: string;
  readonly domain: string;
  readonly overload: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: readonly string[];
  readonly opsets: ReadonlyMap<string, number>;
  readonly body: Graph;
  readonly fieldStart: number;
  readonly span: Span;
}

export interface Model {
  readonly source: ByteSource;
  readonly external: ExternalData;
  readonly irVersion: number;
  readonly producer: string;
  readonly opsets: ReadonlyMap<string, number>;
  readonly graph: Graph;
  readonly functions: readonly ModelFunction[];
  readonly metadata: ReadonlyMap<string, string>;
  readonly fields: readonly ModelField[];
}

/**
 * Opens a model.
 * @param input the bytes of the file, or a reader over it
 * @param external finds external data files; without it their numbers count as unknown
 * @throws ModelFormatError when the bytes are no ONNX model
 */
export function openModel(input: Uint8Array | ByteSource, external: ExternalData = () => null): Model {
  const source = input instanceof Uint8Array ? new MemorySource(input) : input;
  const window = new Window(source);
  const cursor = new Cursor(window, 0, source.size);
  const fields: ModelField[] = [];
  const opsets = new Map<string, number>();
  const metadata = new Map<string, string>();
  const functions: ModelFunction[] = [];
  let irVersion = 0;
  let producer = '';
  let producerVersion = '';
  let graph: Graph | null = null;
  if (source.size === 0) throw new ModelFormatError('the file is empty', 0);
  while (cursor.next()) {
    fields.push({ field: cursor.field, fieldStart: cursor.fieldStart, span: cursor.span });
    if (cursor.field === 1) irVersion = cursor.integer();
    else if (cursor.field === 2) producer = cursor.text();
    else if (cursor.field === 3) producerVersion = cursor.text();
    else if (cursor.field === 7) {
      if (graph !== null) throw new ModelFormatError('the model holds two graphs', cursor.fieldStart);
      graph = readGraph(cursor.message(), cursor.span, null, '');
    } else if (cursor.field === 8) readOpset(cursor.message(), opsets);
    else if (cursor.field === 14) {
      const entry = readPair(cursor.message());
      metadata.set(entry.key, entry.value);
    } else if (cursor.field === 25)
      functions.push(readFunction(cursor.message(), cursor.span, cursor.fieldStart));
  }
  if (graph === null) throw new ModelFormatError('the file holds no graph', 0);
  return {
    source,
    external,
    irVersion,
    producer: [producer, producerVersion].filter((part) => part !== '').join(' '),
    opsets,
    graph,
    functions,
    metadata,
    fields,
  };
}

/** Producers keep whole configurations here. */
const MAX_METADATA_BYTES = 1 << 28;

function readPair(cursor: Cursor): { key: string; value: string } {
  let key = '';
  let value = '';
  while (cursor.next()) {
    if (cursor.field === 1) key = cursor.text();
    else if (cursor.field === 2) value = cursor.text(MAX_METADATA_BYTES);
  }
  return { key, value };
}

function readOpset(cursor: Cursor, into: Map<string, number>): void {
  let domain = '';
  let version = 0;
  while (cursor.next()) {
    if (cursor.field === 1) domain = cursor.text();
    else if (cursor.field === 2) version = cursor.integer();
  }
  into.set(domain === 'ai.onnx' ? '' : domain, version);
}

function readFunction(cursor: Cursor, span: Span, fieldStart: number): ModelFunction {
  const body = new Graph(cursor.window, span, null, '', 0);
  const inputs: string[] = [];
  const outputs: string[] = [];
  const attributes: string[] = [];
  const opsets = new Map<string, number>();
  const nodes: { span: Span; fieldStart: number; cursor: Cursor; at: number }[] = [];
  const infoOf = (name: string): ValueInfo => ({ name, dataType: 0, dims: null });
  let name = '';
  let domain = '';
  let overload = '';
  while (cursor.next()) {
    if (cursor.field === 1) name = cursor.text();
    else if (cursor.field === 4) inputs.push(cursor.text());
    else if (cursor.field === 5) outputs.push(cursor.text());
    else if (cursor.field === 6) attributes.push(cursor.text());
    else if (cursor.field === 9) readOpset(cursor.message(), opsets);
    else if (cursor.field === 10) domain = cursor.text();
    else if (cursor.field === 13) overload = cursor.text();
    else if (cursor.field === 7) {
      nodes.push({
        span: cursor.span,
        fieldStart: cursor.fieldStart,
        cursor: cursor.message(),
        at: body.fields.length,
      });
    }
    body.addField({
      field: cursor.field,
      span: cursor.span,
      fieldStart: cursor.fieldStart,
      name: '',
      node: null,
    });
  }
  inputs.forEach((input) => body.addInput(infoOf(input)));
  outputs.forEach((output) => body.addOutput(infoOf(output)));
  for (const entry of nodes) {
    const node: GraphNode = readNode(entry.cursor, entry.span, body);
    body.addNode(node);
    body.fields[entry.at] = { ...body.fields[entry.at]!, node };
  }
  body.name = name;
  return { name, domain, overload, inputs, outputs, attributes, opsets, body, fieldStart, span };
}
