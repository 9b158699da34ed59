/**
 * Fits sigmoid attention to a softmax model on sample inputs, layer after layer: each layer sees what its converted
 * predecessors really give, so that it can make up for them. Deterministic by seed.
 */
import type { Replacement, SiteParameters } from '../conversion.js';
import { convert } from '../index.js';
import { isVisible } from './collect.js';
import { fitSite, siteParameters, type SiteFit } from './fit-site.js';
import { gather, type GatherRequest } from './gather.js';

export interface CalibrationRequest extends GatherRequest {
  /** The `keep` sites with the largest error stay faithful. */
  readonly keep: number;
  readonly faithful: (replacement: Replacement) => SiteParameters;
  readonly progress?: (label: string, fraction: number) => void;
}

export interface Calibration {
  readonly parameters: ReadonlyMap<string, SiteParameters>;
  readonly sites: readonly SiteFit[];
}

export async function calibrate(request: CalibrationRequest): Promise<Calibration> {
  const sites = calibratedSites(request);
  if (request.keep === 0) return fitAll(request, sites, new Set());
  const alone = await fitAlone(request, sites);
  const worst = [...alone].sort((a, b) => b.error - a.error).slice(0, request.keep);
  const kept = new Set(worst.map(({ site }) => site));
  const { parameters, sites: fitted } = await fitAll(request, sites, kept);
  const errors = alone.filter(({ site }) => kept.has(site)).map((fit) => ({ ...fit, kept: true }));
  return { parameters, sites: [...fitted, ...errors].sort((a, b) => a.depth - b.depth) };
}

/** Softmax and fused sites, first to last. */
function calibratedSites({ placed }: CalibrationRequest): Replacement[] {
  const { replaced } = convert(placed.model, { mode: 'faithful' });
  return replaced
    .filter((replacement) => replacement.site.kind !== 'sigmoid' && isVisible(replacement))
    .sort((a, b) => a.site.depth - b.site.depth);
}

async function fitAll(
  request: CalibrationRequest,
  sites: readonly Replacement[],
  kept: ReadonlySet<string>,
): Promise<Calibration> {
  const parameters = new Map(
    sites.map((replacement) => [replacement.site.name, request.faithful(replacement)]),
  );
  const fits: SiteFit[] = [];
  const fitted = sites.filter(({ site }) => !kept.has(site.name));
  for (const [index, { site }] of fitted.entries()) {
    request.progress?.(`calibrating ${site.name}`, index / fitted.length);
    const [rows] = await gather(request, parameters, [site.name]);
    const fit = fitSite(site.name, site.depth, rows!);
    fits.push(fit);
    parameters.set(site.name, siteParameters(fit, rows!.biasMode));
  }
  return { parameters, sites: fits };
}

/** Every site on the inputs that the original gives it, to tell which ones sigmoid suits least. */
async function fitAlone(request: CalibrationRequest, sites: readonly Replacement[]): Promise<SiteFit[]> {
  const parameters = new Map(
    sites.map((replacement) => [replacement.site.name, request.faithful(replacement)]),
  );
  const names = sites.map(({ site }) => site.name);
  const rows = await gather(request, parameters, names);
  return sites.map(({ site }, index) => {
    request.progress?.('looking for sites to keep', index / sites.length);
    return fitSite(site.name, site.depth, rows[index]!);
  });
}
