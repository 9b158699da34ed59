/**
 * What a converted file says about how it was made: each operator node names the site it stands for and the mode, and its
 * attributes and constants are the site's parameters. Converting the original again with them gives the names that
 * connect both models.
 */
import { BIAS_MODES, inputIndex, OP_TYPE, DOMAIN, type InputName } from '../../op/schema.js';
import type { Mode, Replacement, SiteParameters } from '../conversion.js';
import { floatAttribute, intAttribute, textAttribute, type GraphNode } from '../graph/node.js';
import { convert } from '../index.js';
import { FOLDED_KEY } from '../rewrite/fold.js';
import { TERMS_KEY } from '../rewrite/row-terms.js';
import type { Model } from '../onnx/model.js';
import { tensorNumbers } from '../onnx/tensor.js';
import { Cursor } from '../onnx/wire.js';

export interface Provenance {
  readonly mode: Mode;
  readonly replaced: readonly Replacement[];
  readonly parameters: ReadonlyMap<string, SiteParameters>;
}

const MODES: readonly string[] = ['fuse', 'faithful', 'paper', 'calibrated'] satisfies Mode[];
const NODE_METADATA = 9;

/** `null` where the file was not made from this original by this package. */
export function provenanceOf(original: Model, converted: Model): Provenance | null {
  const parameters = new Map<string, SiteParameters>();
  let mode: Mode | null = null;
  for (const node of converted.graph.nodes) {
    if (node.opType !== OP_TYPE || node.domain !== DOMAIN) continue;
    const metadata = metadataOf(node);
    const site = metadata.get('ort.sigmoid.site');
    const stated = metadata.get('ort.sigmoid.mode');
    if (site === undefined || stated === undefined || !MODES.includes(stated)) return null;
    mode = stated as Mode;
    parameters.set(site, {
      ...parametersOf(converted, node),
      ...written(metadata, TERMS_KEY),
      ...written(metadata, FOLDED_KEY),
    });
  }
  if (mode === null) return null;
  const { replaced } = convert(original, {
    mode,
    sites: ({ name }) => parameters.has(name),
    parameters: ({ name }) => parameters.get(name),
  });
  const names = new Set(converted.graph.nodes.flatMap(({ outputs }) => outputs));
  const isSame =
    replaced.length === parameters.size && replaced.every(({ output }) => names.has(output.converted));
  return isSame ? { mode, replaced, parameters } : null;
}

function metadataOf(node: GraphNode): Map<string, string> {
  const metadata = new Map<string, string>();
  const cursor = new Cursor(node.graph.window, node.span.start, node.span.end);
  while (cursor.next()) {
    if (cursor.field !== NODE_METADATA) continue;
    const pair = cursor.message();
    let key = '';
    let value = '';
    while (pair.next()) {
      if (pair.field === 1) key = pair.text();
      else if (pair.field === 2) value = pair.text();
    }
    metadata.set(key, value);
  }
  return metadata;
}

/** Parameters that are spread over several nodes and constants, as the conversion wrote them down. */
function written(metadata: ReadonlyMap<string, string>, key: string): SiteParameters {
  const text = metadata.get(key);
  if (text === undefined) return {};
  try {
    return JSON.parse(text) as SiteParameters;
  } catch {
    return {};
  }
}

function parametersOf(model: Model, node: GraphNode): SiteParameters {
  const numbers = (name: InputName): number[] | undefined => {
    const stored = model.graph.initializers.get(node.inputs[inputIndex(name)] ?? '');
    const values = stored && tensorNumbers(stored, model.source, model.external);
    return values ? [...values] : undefined;
  };
  const [headBias, headScale, headGain] = [numbers('head_bias'), numbers('head_scale'), numbers('head_gain')];
  const biasMode = textAttribute(node, 'bias_mode', 'none');
  return {
    bias: floatAttribute(node, 'bias', 0),
    biasMode: BIAS_MODES.find((mode) => mode === biasMode) ?? 'none',
    normalize: intAttribute(node, 'normalize', 0) === 1,
    ...(headBias ? { headBias } : {}),
    ...(headScale ? { headScale } : {}),
    ...(headGain ? { headGain } : {}),
  };
}
