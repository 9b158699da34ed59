/** What the report is about. */
import type { SiteStatistics } from '../calibrate/faithful.js';
import type { Plan } from '../calibrate/plan.js';
import type { Conversion, Mode } from '../conversion.js';
import type { Model } from '../onnx/model.js';
import type { Inspection } from '../site.js';
import type { Verification } from '../verify/verification.js';

export interface ReportInput {
  /** Name of the model's file. */
  readonly file: string;
  readonly model: Model;
  readonly inspection: Inspection;
  /** What was done; absent where the model was only inspected. */
  readonly result?: {
    readonly mode: Mode;
    readonly output: string;
    readonly conversion: Conversion;
    readonly converted: Model;
    readonly plan: Plan;
    readonly verification: Verification | null;
    /** Why nothing was verified. */
    readonly unverified: string | null;
    /** The task's metric of both models, where the user gave one. */
    readonly metric: { readonly name: string; readonly original: number; readonly converted: number } | null;
  };
  readonly statistics?: readonly SiteStatistics[];
}
