/** Puts the operator in the place of attention sites and writes the model anew. */
import { FunctionRefusal, functionFor, neutralInput } from '../op/function.js';
import { ATTRIBUTES, DOMAIN, INPUTS, OP_TYPE, SINCE_VERSION, type InputName } from '../op/schema.js';
import proto from 'onnx-proto';
import { analyse, graphsOf, type Analysis, type SpelledSite } from './attention/analyse.js';
import { shapeReaders, type Derived } from './attention/derive.js';
import { findDead, readNames } from './attention/liveness.js';
import type { Conversion, ConvertOptions, Refusal, Replacement, SiteParameters } from './conversion.js';
import type { Graph } from './graph/graph.js';
import type { Knowledge } from './graph/knowledge.js';
import { nodeLabel, type GraphNode } from './graph/node.js';
import { describe } from './inspect.js';
import type { Model } from './onnx/model.js';
import { DataType } from './onnx/tensor.js';
import { modelPieces, pieceBytes, piecesSize, type GraphEdit } from './onnx/write.js';
import { concatenate } from './onnx/wire.js';
import { attach, type Attachment } from './rewrite/attach.js';
import {
  Constants,
  Emitter,
  encodePair,
  Names,
  type AttributeInput,
  type NewNode,
} from './rewrite/emitter.js';
import { foldedMetadata, foldSite, type FoldedSite } from './rewrite/fold.js';
import { FoldedWeights } from './rewrite/fold-weights.js';
import type { MaskCache } from './rewrite/mask-tensor.js';
import { emitShape, functionUse, needsRankFour, replaceSite, type Call } from './rewrite/replace.js';
import { termsMetadata } from './rewrite/row-terms.js';
import type { Site } from './site.js';

/** Models that hold functions need this IR version. */
const FUNCTION_IR_VERSION = 8;

interface Chosen {
  readonly site: Site;
  readonly spelled: SpelledSite;
}

interface Emitted {
  readonly chosen: Chosen;
  readonly attachment: Attachment;
  readonly fold: FoldedSite;
  readonly call: Call;
  readonly finish: () => void;
  readonly emitter: Emitter;
  readonly nodeName: string;
}

/**
 * Converts a model.
 * @throws ModelFormatError when the model breaks off or contradicts itself
 */
export function convert(original: Model, options: ConvertOptions): Conversion {
  const analysis = analyse(original);
  const conversion = convertAnalysed(original, analysis, options);
  const hasJoined = analysis.spelled.some(({ joined }) => joined !== null);
  if (conversion.portableFormMissing === null || options.withoutFunction === true || !hasJoined)
    return conversion;
  // A model that every runtime can run is worth more than joins that fall away.
  const plain = { ...analysis, spelled: analysis.spelled.map((entry) => entry.joined ?? entry) };
  const other = convertAnalysed(original, plain, options);
  return other.portableFormMissing === null ? other : conversion;
}

function convertAnalysed(original: Model, analysis: Analysis, options: ConvertOptions): Conversion {
  const { model } = analysis;
  const { inspection, sources } = describe(analysis);
  const chosen: Chosen[] = [];
  const refused: Refusal[] = [];
  for (const [i, site] of inspection.sites.entries()) {
    const source = sources[i]!;
    const refuse = (reason: Refusal['reason'], detail: string): number =>
      refused.push({ site, name: site.name, reason, detail });
    const wanted = options.sites?.(site) ?? true;
    if (!('masks' in source)) refuse(source.reason, source.detail);
    else if (wanted === false) refuse('filtered', 'the caller left this site out');
    else if (wanted !== true) refuse(wanted.reason, wanted.detail);
    else if (options.mode === 'fuse' && site.kind !== 'sigmoid')
      refuse('mode', 'mode fuse converts sigmoid sites only');
    else chosen.push({ site, spelled: source });
  }
  const opset = model.opsets.get('') ?? 0;
  const rank = chooseRank(chosen, analysis.knowledge);
  const names = new Names(graphsOf(model.graph));
  const constants = new Constants(names);
  const caches = new Map<Graph, MaskCache>();
  const weights = new FoldedWeights(model, model.graph);
  const emitted: Emitted[] = [];
  for (const entry of chosen) {
    const { site, spelled } = entry;
    const attachment = attach(spelled.site, rank)!;
    const nodeName = names.fresh(`${OP_TYPE}_${emitted.length}`);
    const emitter = new Emitter(names, constants, nodeName, opset);
    const masks = caches.get(spelled.anchor.graph) ?? new Map();
    caches.set(spelled.anchor.graph, masks);
    const given = parametersOf(options, site);
    const fold =
      options.mode === 'calibrated'
        ? foldSite(spelled, given, analysis.knowledge, weights)
        : { parameters: given, foldings: [] };
    const context = {
      knowledge: analysis.knowledge,
      emitter,
      masks,
      mode: options.mode,
      parameters: fold.parameters,
    };
    const { call, finish } = replaceSite(spelled, attachment, context);
    emitted.push({ chosen: entry, attachment, fold, call, finish, emitter, nodeName });
  }
  const isComplete = makeAlike(emitted);
  for (const entry of emitted) {
    entry.emitter.add({
      name: entry.nodeName,
      opType: OP_TYPE,
      domain: DOMAIN,
      inputs: inputList(entry.call),
      outputs: entry.call.outputs,
      attributes: attributeList(entry.call),
      metadata: {
        'ort.sigmoid.site': entry.chosen.site.name,
        'ort.sigmoid.mode': options.mode,
        ...termsMetadata(parametersOf(options, entry.chosen.site)),
        ...foldedMetadata(entry.fold.foldings),
      },
    });
    entry.finish();
  }
  const { edits, removed } = graphEdits(
    model.graph,
    weights,
    emitted,
    constants,
    (prefix) => new Emitter(names, constants, prefix, opset),
  );
  const { functions, missing } = portableFunction(model, emitted, options, isComplete);
  const isChanged = emitted.length > 0;
  const pieces = isChanged
    ? modelPieces(model, {
        graphs: edits,
        irVersion: Math.max(model.irVersion, functions.length > 0 ? FUNCTION_IR_VERSION : 0),
        opsets: new Map(model.opsets.has(DOMAIN) ? [] : [[DOMAIN, SINCE_VERSION]]),
        functions,
        droppedDomain: DOMAIN,
        metadata: [encodePair('ort.sigmoid.converted', `${emitted.length} sites, mode ${options.mode}`)],
      })
    : [{ start: 0, end: original.source.size }];
  const { source } = isChanged ? model : original;
  return {
    inspection,
    replaced: emitted.map((entry) => replacementOf(entry, removed)),
    refused,
    portableFormMissing: missing,
    size: piecesSize(pieces),
    pieces: () => pieceBytes(source, pieces),
    toBytes: () => concatenate([...pieceBytes(source, pieces)]),
  };
}

function parametersOf(options: ConvertOptions, site: Site): SiteParameters {
  const { parameters } = options;
  return (typeof parameters === 'function' ? parameters(site) : parameters?.[site.name]) ?? {};
}

/** One function serves all nodes of a model, so all have one rank: the one that leaves the fewer nodes. */
function chooseRank(chosen: readonly Chosen[], knowledge: Knowledge): 3 | 4 {
  let difference = 0;
  for (const { spelled } of chosen) {
    const three = needsRankFour(spelled.site, knowledge) ? null : attach(spelled.site, 3);
    const four = attach(spelled.site, 4);
    if (three === null || four === null) return 4;
    difference += three.cost - four.cost;
  }
  return difference < 0 ? 3 : 4;
}

/** Gives every call the optional inputs that any of them has; false when that is not possible. */
function makeAlike(emitted: readonly Emitted[]): boolean {
  const wanted = new Set(emitted.flatMap(({ call }) => [...call.inputs.keys()]));
  if (emitted.some(({ call }) => call.outputs.length > 1)) {
    for (const { call } of emitted) if (call.outputs.length === 1) call.outputs = [...call.outputs, '', ''];
  }
  const maskType = emitted.find(({ call }) => call.maskType !== null)?.call.maskType ?? 'float';
  let isComplete = true;
  for (const { call, emitter } of emitted) {
    for (const name of wanted) {
      if (call.inputs.has(name)) continue;
      if (name === 'past_key' || name === 'past_value') {
        const past = emptyPast(call, name === 'past_key' ? 'K' : 'V', emitter);
        if (past === null) isComplete = false;
        else call.inputs.set(name, past);
        continue;
      }
      const neutral = neutralInput(name, call.heads ?? 1, maskType);
      if (neutral === null || (name !== 'attn_mask' && call.heads === null)) isComplete = false;
      else if (name === 'attn_mask') {
        const type =
          maskType === 'bool'
            ? DataType.bool
            : maskType === 'float16'
              ? DataType.float16
              : maskType === 'bfloat16'
                ? DataType.bfloat16
                : DataType.float;
        call.inputs.set(name, emitter.tensor(type, [1], [maskType === 'bool' ? 1 : 0]));
        call.maskType = maskType;
      } else call.inputs.set(name, emitter.vector(Array.from(neutral.data as Float32Array)));
    }
  }
  return isComplete;
}

/** A past without rows, cut from K or V; `null` where a past would move the rows' positions or a size is open. */
function emptyPast(call: Call, of: 'K' | 'V', emitter: Emitter): string | null {
  const { rank, kvHeads } = call;
  const size = of === 'K' ? call.headSize : call.valueHeadSize;
  if (call.inputs.has('nonpad_kv_seqlen') || kvHeads === null || size === null) return null;
  const none = emitter.slice(call.inputs.get(of)!, rank === 3 ? 1 : 2, 0, 0);
  if (rank === 4) return none;
  // [B, 0, H*D] to [B, H, 0, D], in which zeros of the shape stand for sizes of the input.
  const moved = emitter.apply('Transpose', [none], { perm: [0, 2, 1] });
  return emitter.apply('Reshape', [moved, emitter.ints([0, kvHeads, 0, size])]);
}

function inputList(call: Call): string[] {
  const last = INPUTS.findLastIndex(({ name }) => call.inputs.has(name));
  return INPUTS.slice(0, last + 1).map(({ name }) => call.inputs.get(name) ?? '');
}

function attributeList(call: Call): Record<string, AttributeInput> {
  const out: Record<string, AttributeInput> = {};
  for (const { name, type, default: fallback } of ATTRIBUTES) {
    const value = call.attributes[name] ?? fallback;
    if (value === null) continue;
    if (type === 'string') out[name] = String(value);
    else out[name] = type === 'int' ? Number(value) : { float: Number(value) };
  }
  return out;
}

interface Portable {
  readonly functions: readonly Uint8Array[];
  readonly missing: string | null;
}

function portableFunction(
  model: Model,
  emitted: readonly Emitted[],
  options: ConvertOptions,
  isComplete: boolean,
): Portable {
  if (emitted.length === 0) return { functions: [], missing: null };
  if (options.withoutFunction === true) return { functions: [], missing: 'the caller asked for none.' };
  if (model.functions.some(({ domain }) => domain === DOMAIN)) {
    return { functions: [], missing: 'the model held a function for the nodes it had before.' };
  }
  if (!isComplete) {
    return { functions: [], missing: 'the nodes differ in optional inputs that have no neutral value.' };
  }
  try {
    const message = functionFor(
      emitted.map(({ call }) => functionUse(call)),
      model.opsets.get('') ?? 0,
    );
    return { functions: [proto.onnx.FunctionProto.encode(message).finish()], missing: null };
  } catch (error) {
    if (error instanceof FunctionRefusal) return { functions: [], missing: error.message };
    throw error;
  }
}

function graphEdits(
  main: Graph,
  weights: FoldedWeights,
  emitted: readonly Emitted[],
  constants: Constants,
  newEmitter: (prefix: string) => Emitter,
): { edits: Map<Graph, GraphEdit>; removed: Map<Graph, Set<GraphNode>> } {
  const edits = new Map<Graph, GraphEdit>();
  const removedBy = new Map<Graph, Set<GraphNode>>();
  const byGraph = new Map<Graph, Emitted[]>();
  for (const entry of emitted) {
    const { graph } = entry.chosen.spelled.anchor;
    byGraph.set(graph, [...(byGraph.get(graph) ?? []), entry]);
  }
  for (const [graph, entries] of byGraph) {
    const inserted = new Map<number, Uint8Array[]>();
    const kept = new Set<string>();
    const replaced = new Set<GraphNode>();
    const produced = new Set(
      entries.flatMap(({ emitter }) => emitter.nodes.flatMap(({ outputs }) => outputs)),
    );
    for (const { chosen, attachment, emitter } of entries) {
      const { valueProduct, past } = chosen.spelled.site;
      for (const join of past?.joins ?? []) replaced.add(join);
      const before = inserted.get(valueProduct.index) ?? [];
      before.push(...emitter.nodes.map(({ bytes }) => bytes));
      inserted.set(valueProduct.index, before);
      for (const node of emitter.nodes) for (const input of node.inputs) kept.add(input);
      replaced.add(valueProduct);
      for (const node of attachment.output.link.passed) replaced.add(node);
    }
    for (const [reader, site, prefix] of shapeReadersLeft(graph, entries, replaced, kept)) {
      const emitter = newEmitter(prefix);
      emitShape(reader, site, emitter);
      inserted.set(reader.index, [
        ...(inserted.get(reader.index) ?? []),
        ...emitter.nodes.map(({ bytes }) => bytes),
      ]);
      for (const node of emitter.nodes) {
        for (const input of node.inputs) kept.add(input);
        for (const output of node.outputs) produced.add(output);
      }
      replaced.add(reader);
    }
    const removed = findDead(graph, replaced, kept);
    removedBy.set(graph, removed);
    edits.set(graph, {
      removed,
      inserted,
      removedInitializers: orphans(graph, removed, kept),
      removedValueInfo: new Set(
        [...removed].flatMap(({ outputs }) => outputs).filter((name) => !produced.has(name)),
      ),
      addedInitializers: [],
    });
  }
  addConstants(edits, emitted, constants);
  const edit = edits.get(main);
  if (edit !== undefined && !weights.isEmpty) edits.set(main, weights.applied(edit));
  return { edits, removed: removedBy };
}

/** Shapes of scores or weights that nodes outside of the sites still ask for. */
function shapeReadersLeft(
  graph: Graph,
  entries: readonly Emitted[],
  replaced: ReadonlySet<GraphNode>,
  kept: ReadonlySet<string>,
): [GraphNode, Derived, string][] {
  const dead = findDead(graph, replaced, kept);
  return entries.flatMap(({ chosen, nodeName }) =>
    shapeReaders(chosen.spelled.site)
      .filter((reader) => !dead.has(reader))
      .map((reader): [GraphNode, Derived, string] => [reader, chosen.spelled.site, nodeName]),
  );
}

/** New constants live in the main graph, where nested bodies see them. */
function addConstants(edits: Map<Graph, GraphEdit>, emitted: readonly Emitted[], constants: Constants): void {
  let main = emitted[0]?.chosen.spelled.anchor.graph;
  while (main?.parent) main = main.parent;
  if (main === undefined) return;
  const edit = edits.get(main) ?? {
    removed: new Set(),
    inserted: new Map(),
    removedInitializers: new Set(),
    removedValueInfo: new Set(),
    addedInitializers: [],
  };
  edits.set(main, { ...edit, addedInitializers: constants.encoded.map(({ bytes }) => bytes) });
}

/** Initializers that only removed nodes read. Those that are model inputs as well stay. */
function orphans(graph: Graph, removed: ReadonlySet<GraphNode>, kept: ReadonlySet<string>): Set<string> {
  const out = new Set<string>();
  const inputs = new Set(graph.inputs.map(({ name }) => name));
  for (const node of removed) {
    for (const name of readNames(node)) {
      if (!graph.initializers.has(name) || kept.has(name) || inputs.has(name) || graph.isOutput(name))
        continue;
      if (graph.uses(name).every((use) => removed.has(use))) out.add(name);
    }
  }
  return out;
}

function replacementOf(entry: Emitted, removed: ReadonlyMap<Graph, ReadonlySet<GraphNode>>): Replacement {
  const { chosen, call, emitter, attachment, nodeName } = entry;
  const { graph } = chosen.spelled.anchor;
  const gone = removed.get(graph) ?? new Set<GraphNode>();
  const near = new Set([...chosen.spelled.site.pathNodes, ...attachment.output.link.passed]);
  const { name } = attachment.output.link;
  return {
    site: chosen.site,
    node: nodeName,
    output: { original: name, converted: name },
    inputs: Object.fromEntries([...call.inputs].map(([input, value]): [InputName, string] => [input, value])),
    attributes: Object.fromEntries(
      Object.entries(attributeList(call)).map(([key, value]) => [key, plain(value)]),
    ),
    operands: call.operands,
    removed: [...near].filter((node) => gone.has(node)).map(nodeLabel),
    foldings: entry.fold.foldings,
    added: emitter.nodes.filter((node: NewNode) => node.name !== nodeName).map((node) => node.name),
  };
}

function plain(value: AttributeInput): number | string {
  if (typeof value === 'number' || typeof value === 'string') return value;
  return 'float' in value ? value.float : value.join(',');
}
