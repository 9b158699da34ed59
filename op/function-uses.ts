/**
 * What one portable function has to serve: the forms of all SigmoidAttention nodes of a model. A model holds one function
 * of a name, and its body is written in the form (types, rank, inputs) of all its calls; what differs between nodes is
 * decided inside the body, from the attributes of the call. Here it is worked out what is the same everywhere and what
 * differs, and which combinations standard operators cannot express in one body.
 */

import {
  ATTRIBUTES,
  type AttributeSpec,
  type Attributes,
  BIAS_MODES,
  type BiasMode,
  INPUTS,
  type InputName,
} from './schema.js';
import { type ElementType, fromNumbers, type Tensor } from './tensor.js';

/** How one node calls the function. */
export interface FunctionUse {
  readonly type: ElementType;
  readonly rank: 3 | 4;
  /** As they stand on the node: every attribute is written out there (see `nodeAttributes`). */
  readonly attributes: Attributes;
  /** The optional inputs that the node gives. */
  readonly inputs: readonly InputName[];
  /** Whether the node has the outputs present_key and present_value. */
  readonly presents: boolean;
  /** Type of attn_mask where that is given. */
  readonly maskType?: ElementType | 'bool';
}

/** Why the nodes of a model cannot share one portable function. */
export class FunctionRefusal extends Error {
  override readonly name = 'FunctionRefusal';
}

/** Whether something holds for none, all or some of the calls. */
export type Share = 'never' | 'always' | 'mixed';

export interface FunctionFacts {
  readonly opset: number;
  readonly type: ElementType | 'mixed';
  readonly rank: 3 | 4;
  readonly inputs: ReadonlySet<InputName>;
  /** Whether some node has the outputs present_key and present_value; the others then name them ''. */
  readonly presents: boolean;
  readonly mask: 'none' | 'bool' | 'number' | 'mixed';
  /** Whether scale is written on the nodes; `false`: 1/sqrt(D) everywhere. */
  readonly explicitScale: boolean;
  readonly biased: boolean;
  readonly biasModes: readonly BiasMode[];
  readonly causal: Share;
  readonly leftWindow: Share;
  readonly rightWindow: Share;
  readonly softcap: Share;
  readonly normalize: Share;
  /** The attributes that stand on some node. */
  readonly written: ReadonlySet<keyof Attributes>;
  /** Attributes of the first call; opset 11 cannot pass attributes on, so there they hold for all calls. */
  readonly attributes: Attributes;
}

/** Gathers the facts, or throws a {@link FunctionRefusal} that says which nodes cannot share a body and why. */
export function functionFacts(uses: readonly FunctionUse[], opset: number): FunctionFacts {
  const [first] = uses;
  if (first === undefined)
    throw new FunctionRefusal('no SigmoidAttention node is given, at least one is needed.');
  if (opset < 7)
    throw new FunctionRefusal(`the model's opset is ${opset}, must be 7 or more for the portable function.`);
  refuseDifferences(uses, first, opset);
  const maskTypes = new Set(uses.flatMap(({ maskType }) => (maskType === undefined ? [] : [maskType])));
  const numberMask = [...maskTypes].some((type) => type !== 'bool');
  const types = new Set(uses.map(({ type }) => type));
  const modes = new Set(uses.map(({ attributes }) => attributes.bias_mode ?? 'none'));
  const share = (holds: (attributes: Attributes) => boolean): Share => {
    const count = uses.filter(({ attributes }) => holds(attributes)).length;
    if (count === 0) return 'never';
    return count === uses.length ? 'always' : 'mixed';
  };
  return {
    opset,
    type: types.size === 1 ? first.type : 'mixed',
    rank: first.rank,
    inputs: new Set(first.inputs),
    presents: uses.some(({ presents }) => presents),
    mask: maskTypes.size === 0 ? 'none' : !maskTypes.has('bool') ? 'number' : numberMask ? 'mixed' : 'bool',
    explicitScale: first.attributes.scale !== undefined,
    biased: share(({ bias }) => bias !== undefined && bias !== 0) !== 'never',
    biasModes: BIAS_MODES.filter((mode) => modes.has(mode)),
    causal: share(({ is_causal }) => is_causal === true),
    leftWindow: share(({ left_window_size = -1 }) => left_window_size >= 0),
    rightWindow: share(({ right_window_size = -1 }) => right_window_size >= 0),
    softcap: share(({ softcap = 0 }) => softcap > 0),
    normalize: share(({ normalize }) => normalize === true),
    written: new Set(
      ATTRIBUTES.filter((spec) => uses.some(({ attributes }) => isWritten(spec, attributes))).map(
        ({ name }) => name,
      ),
    ),
    attributes: first.attributes,
  };
}

/** Whether a node with these attributes writes this one out: always, unless it has neither a value nor a default. */
export function isWritten(spec: AttributeSpec, attributes: Attributes): boolean {
  return spec.default !== null || attributes[spec.name] !== undefined;
}

function refuseDifferences(uses: readonly FunctionUse[], first: FunctionUse, opset: number): void {
  const inputsOf = (use: FunctionUse): string =>
    INPUTS.filter(({ name }) => use.inputs.includes(name))
      .map(({ name }) => name)
      .join(', ') || 'none';
  for (const use of uses) {
    const { q_num_heads, kv_num_heads } = use.attributes;
    if (use.rank === 3 && (q_num_heads === undefined || kv_num_heads === undefined))
      throw new FunctionRefusal('a node with inputs of rank 3 lacks q_num_heads or kv_num_heads.');
    if (use.rank !== first.rank)
      throw new FunctionRefusal(
        `one node has inputs of rank ${first.rank} and another of rank ${use.rank}; all must have the same rank.`,
      );
    if (inputsOf(use) !== inputsOf(first))
      throw new FunctionRefusal(
        `one node gives the optional inputs ${inputsOf(first)} and another ${inputsOf(use)}; ` +
          'all must give the same (neutralInput makes constants for those that have a neutral value).',
      );
    if ((use.attributes.scale === undefined) !== (first.attributes.scale === undefined))
      throw new FunctionRefusal('one node gives scale and another does not; all or none must give it.');
  }
  if (opset < 15 && new Set(uses.map(({ type }) => type)).size > 1)
    throw new FunctionRefusal(
      `the nodes have several types; that needs opset 15 or more, the model's is ${opset}.`,
    );
  const selects = uses.some(
    ({ inputs, attributes: { is_causal, left_window_size = -1, right_window_size = -1 } }) =>
      inputs.some((name) => ['attn_mask', 'nonpad_kv_seqlen', 'alibi_slopes'].includes(name)) ||
      is_causal === true ||
      left_window_size >= 0 ||
      right_window_size >= 0,
  );
  if (opset < 9 && selects)
    throw new FunctionRefusal(
      `a node hides keys or counts positions; that needs opset 9 or more, the model's is ${opset}.`,
    );
  const hasBool = uses.some(({ maskType }) => maskType === 'bool');
  if (opset < 15 && hasBool && uses.some(({ maskType }) => maskType !== undefined && maskType !== 'bool'))
    throw new FunctionRefusal(
      `some nodes have bool and some have number masks; that needs opset 15 or more, the model's is ${opset}.`,
    );
  if (opset < 13 && uses.some(({ type, maskType }) => type === 'bfloat16' || maskType === 'bfloat16'))
    throw new FunctionRefusal(`bfloat16 needs opset 13 or more, the model's is ${opset}.`);
  if (opset < 12 && new Set(uses.map(({ attributes }) => sortedJson(attributes))).size > 1)
    throw new FunctionRefusal(
      `the nodes have different attributes; that needs opset 12 or more, the model's is ${opset}.`,
    );
}

const sortedJson = (attributes: Attributes): string =>
  JSON.stringify(Object.entries(attributes).sort(([a], [b]) => (a < b ? -1 : 1)));

/**
 * A constant that changes nothing, for a node that lacks an optional input which others give. `maskType` is that of the
 * other nodes' masks. `null` for past_key, past_value and nonpad_kv_seqlen, which have no constant neutral value: pass an
 * empty slice of K and V as the past, or all key lengths as nonpad_kv_seqlen (the latter moves the offset to Nk - Nq).
 */
export function neutralInput(
  name: InputName,
  queryHeads: number,
  maskType: ElementType | 'bool' = 'float',
): Tensor | null {
  const perHead = (value: number): Tensor =>
    fromNumbers('float', [queryHeads], new Float32Array(queryHeads).fill(value));
  switch (name) {
    case 'attn_mask':
      return maskType === 'bool'
        ? { type: 'bool', dims: [1], data: Uint8Array.of(1) }
        : fromNumbers(maskType, [1], [0]);
    case 'head_bias':
    case 'alibi_slopes':
      return perHead(0);
    case 'head_scale':
    case 'head_gain':
      return perHead(1);
    default:
      return null;
  }
}
