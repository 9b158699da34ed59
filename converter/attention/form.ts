/** The normal form of an attention site: what the derivation knows about it, with labelled axes. */
import type { GraphNode } from '../graph/node.js';
import type { ReasonCode } from '../reasons.js';
import type { Atom, Axes, Axis } from './layout.js';
import type { PartialTerms } from './partial-update.js';

/** Scores lowered to this or below leave a key no weight. */
export const EXCLUDED = -1000;

/** A tensor of the model together with the meaning of its axes. */
export interface Labelled {
  readonly name: string;
  readonly axes: Axes;
}

/** A tensor (or one number) added to the scores, times a factor. */
export interface Addend {
  readonly tensor: Labelled;
  readonly factor: number;
  /** A factor that the model computes. */
  readonly node: GraphNode;
}

/** A condition under which a key takes part. */
export interface Visibility {
  readonly condition: Labelled;
  /** The key takes part where the condition is false. */
  readonly negated: boolean;
  /** What the score was replaced by elsewhere; -Infinity where the weight itself was set to 0. */
  readonly fill: number;
  /** Tensors added to the scores before these were replaced; absent where scores are lowered or weights set to 0. */
  readonly replaces?: readonly string[];
  readonly node: GraphNode;
}

/** Weights that are 0 but where `column - row` is at most `diagonal` (at least, for `upper`), both counted from 0. */
export interface KeptTriangle {
  readonly rows: Axis;
  readonly columns: Axis;
  readonly upper: boolean;
  readonly diagonal: number;
  readonly node: GraphNode;
}

/** A factor on the scores or on the weights that is a tensor. */
export interface TensorFactor {
  readonly tensor: Labelled;
  readonly divides: boolean;
  readonly node: GraphNode;
}

/** What was found between the score product and the activation, and between the weights and the value product. */
export interface ScoreForm {
  /** Axes at the current point of the walk. */
  axes: Axes;
  scale: number;
  scaleTensors: TensorFactor[];
  softcap: number;
  bias: number;
  addends: Addend[];
  visible: Visibility[];
  /** Addends that the model has no value for yet. */
  partials: PartialTerms[];
  /** Masks that set weights to 0 after a softmax; the scores have to be hidden there already. */
  zeroed: Visibility[];
  /** Triangles that the weights of a sigmoid were cut to. */
  triangles: KeptTriangle[];
  /** Factor that the value product's result has to be multiplied by. */
  gain: number;
  gainTensors: TensorFactor[];
  /** Axes over which the weights of a sigmoid are divided by their sum; `null` where they are not. */
  normalise: ReadonlySet<Atom> | null;
  /** Rows without a visible key give 0 in the model too. */
  guarded: boolean;
}

/** Why a site is not replaced. */
export class Refused extends Error {
  constructor(
    readonly code: ReasonCode,
    readonly detail: string,
    readonly nodes: readonly GraphNode[],
  ) {
    super(detail);
  }
}
