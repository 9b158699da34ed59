/**
 * Fits the heads of one site in several forms and takes the simplest that is not clearly worse than a richer one on rows
 * that were held back from fitting.
 */
import type { SiteParameters } from '../conversion.js';
import { fitHead, headError, type HeadFit } from './fit.js';
import type { Abilities, GatheredRows } from './gather.js';
import { energyOf, PLAIN, unfitted, type HeadForm, type HeadRows } from './head-parameters.js';
import { heldBack, withoutMeanValue } from './head-rows.js';

/**
 * - `plain`: bias, temperature, gain.
 * - `shifted`: also constants: on the keys (a number per row that the query gives), on the values, on the output.
 * - `centred`: also a multiple of the mean of the row's scores, and the mean of the values, which follow each input.
 * - `spread`: also multiples of the variance and the standard deviation of the row's scores.
 */
export type SiteForm = 'plain' | 'shifted' | 'centred' | 'spread';

export interface SiteFit {
  readonly site: string;
  readonly depth: number;
  readonly form: SiteForm;
  readonly heads: readonly HeadFit[];
  /** |y - o| / |o| over all heads: after fitting, on rows held back from choosing the form, and with the paper's b = -log n. */
  readonly error: number;
  readonly heldBackError: number;
  readonly paperError: number;
  /** The mean of the values is taken out around attention. */
  readonly centreValues: boolean;
  /** Left in faithful mode. */
  readonly kept: boolean;
}

/** A richer form has to lower the error on held-back rows at least so far. */
const WORTH = { shifted: 0.97, centred: 0.9, spread: 0.9 } as const;

interface Trial {
  readonly form: SiteForm;
  readonly headForm: HeadForm;
  readonly centreValues: boolean;
}

/** The choice among the forms needs fewer steps than the fit that is kept. */
const TRIAL_ITERATIONS = 12;

export function fitSite(site: string, depth: number, { store, softcap, can }: GatheredRows): SiteFit {
  const blocks = Array.from({ length: store.heads }, (_, head) => store.head(head));
  const halves = blocks.map(heldBack);
  const energy = total(blocks);
  const judgedEnergy = total(halves.map(({ judged }) => judged));
  let chosen: { trial: Trial; starts: readonly HeadFit[]; error: number } | null = null;
  for (const trial of trialsOf(can)) {
    const seen = trial.centreValues ? withoutMeanValue : (own: HeadRows): HeadRows => own;
    const starts = halves.map(({ fitted }) =>
      fitHead(fitted.map(seen), softcap, trial.headForm, undefined, TRIAL_ITERATIONS),
    );
    const loss = halves.reduce((sum, { judged }, head) => {
      const rows = judged.map(seen);
      return sum + energyOf(rows) * headError(rows, softcap, starts[head]!) ** 2;
    }, 0);
    const error = judgedEnergy > 0 ? Math.sqrt(loss / judgedEnergy) : 0;
    const worth = trial.form === 'plain' ? 1 : WORTH[trial.form];
    if (chosen === null || error < worth * chosen.error) chosen = { trial, starts, error };
  }
  const { trial, starts, error: heldBackError } = chosen!;
  const seen = trial.centreValues ? withoutMeanValue : (own: HeadRows): HeadRows => own;
  const heads = blocks.map((own, head) => fitHead(own.map(seen), softcap, trial.headForm, starts[head]));
  const lossOfHeads = heads.reduce(
    (sum, { error }, head) => sum + energyOf(blocks[head]!.map(seen)) * error ** 2,
    0,
  );
  const paperLoss = blocks.reduce(
    (sum, own) => (own[0] ? sum + energyOf(own) * headError(own, softcap, unfitted(own[0])) ** 2 : sum),
    0,
  );
  const relative = (loss: number): number => (energy > 0 ? Math.sqrt(loss / energy) : 0);
  return {
    site,
    depth,
    form: trial.form,
    heads,
    error: relative(lossOfHeads),
    heldBackError,
    paperError: relative(paperLoss),
    centreValues: trial.centreValues,
    kept: false,
  };
}

const total = (blocks: readonly (readonly HeadRows[])[]): number =>
  blocks.reduce((sum, own) => sum + energyOf(own), 0);

function trialsOf(can: Abilities): Trial[] {
  const shifted = { ...PLAIN, rowQuery: true, outputShift: true, valueShift: can.valueShift };
  const { centreValues, moments } = can;
  const trials: Trial[] = [
    { form: 'plain', headForm: PLAIN, centreValues: false },
    { form: 'shifted', headForm: shifted, centreValues: false },
  ];
  if (moments > 0 || centreValues)
    trials.push({ form: 'centred', headForm: { ...shifted, moments: Math.min(1, moments) }, centreValues });
  if (moments > 1) trials.push({ form: 'spread', headForm: { ...shifted, moments }, centreValues });
  return trials;
}

/** What the conversion of a fitted site takes. */
export function siteParameters(
  { heads, form, centreValues }: SiteFit,
  biasMode: GatheredRows['biasMode'],
): SiteParameters {
  return {
    normalize: false,
    bias: 0,
    biasMode,
    headBias: heads.map(({ bias }) => bias),
    headScale: heads.map(({ scale }) => scale),
    headGain: heads.map(({ gain }) => gain),
    ...(form === 'plain'
      ? {}
      : {
          rowQuery: heads.map(({ rowQuery }) => rowQuery),
          outputShift: heads.map(({ outputShift }) => outputShift),
        }),
    ...(heads.some(({ valueShift }) => valueShift.some((value) => value !== 0))
      ? { valueShift: heads.map(({ valueShift }) => valueShift) }
      : {}),
    ...(heads.some(({ rowMoments }) => rowMoments.some((value) => value !== 0))
      ? { rowMoments: heads.map(({ rowMoments }) => rowMoments) }
      : {}),
    ...(centreValues ? { centreValues } : {}),
  };
}
