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
  readonly faithful: (replacement: Replacement) => SiteParameters;
  readonly progress?: (label: string, fraction: number) => void;
}

export interface Calibration {
  readonly parameters: ReadonlyMap<string, SiteParameters>;
  /** First to last. */
  readonly sites: readonly SiteFit[];
}

interface FittedSite {
  readonly fit: SiteFit;
  readonly parameters: SiteParameters;
}

/** Fits with different numbers of sites left faithful; what they have in common is fitted once. */
export class Calibrator {
  readonly #sites: readonly Replacement[];
  /** Sites that samples do not reach: they stay faithful. */
  readonly #hidden: readonly Replacement[];
  /** By the site and what its predecessors are. */
  readonly #fitted = new Map<string, FittedSite>();
  #alone: Promise<SiteFit[]> | null = null;

  constructor(private readonly request: CalibrationRequest) {
    const { replaced } = convert(request.placed.model, { mode: 'faithful' });
    const softmax = replaced.filter(({ site }) => site.kind !== 'sigmoid');
    this.#sites = softmax.filter(isVisible).sort((a, b) => a.site.depth - b.site.depth);
    this.#hidden = softmax.filter((replacement) => !isVisible(replacement));
  }

  get count(): number {
    return this.#sites.length;
  }

  /** Names of sites in nested graphs, whose values samples do not reach. */
  get hidden(): readonly string[] {
    return this.#hidden.map(({ site }) => site.name);
  }

  /** The `keep` sites with the largest error stay faithful, the others are fitted. */
  async keeping(keep: number): Promise<Calibration> {
    const alone = keep > 0 ? await this.alone() : [];
    const worst = [...alone].sort((a, b) => b.error - a.error).slice(0, keep);
    const kept = new Map(worst.map((fit) => [fit.site, { ...fit, kept: true }]));
    const parameters = new Map(
      [...this.#sites, ...this.#hidden].map((replacement) => [
        replacement.site.name,
        this.request.faithful(replacement),
      ]),
    );
    const fits: SiteFit[] = [];
    let past = '';
    for (const [index, { site }] of this.#sites.entries()) {
      const own = kept.get(site.name);
      past += own ? 'k' : 'f';
      if (own) {
        fits.push(own);
        continue;
      }
      this.request.progress?.(`calibrating ${site.name}`, index / this.count);
      const known = this.#fitted.get(past) ?? (await this.#fit(site, parameters));
      this.#fitted.set(past, known);
      fits.push(known.fit);
      parameters.set(site.name, known.parameters);
    }
    return { parameters, sites: fits };
  }

  async #fit(
    { name, depth }: Replacement['site'],
    parameters: Calibration['parameters'],
  ): Promise<FittedSite> {
    const [rows] = await gather(this.request, parameters, [name]);
    const fit = fitSite(name, depth, rows!);
    return { fit, parameters: siteParameters(fit, rows!.biasMode) };
  }

  /** Every site on the inputs that the original gives it, to tell which ones sigmoid suits least. */
  alone(): Promise<SiteFit[]> {
    return (this.#alone ??= this.#fitAlone());
  }

  async #fitAlone(): Promise<SiteFit[]> {
    const { request } = this;
    const parameters = new Map(
      [...this.#sites, ...this.#hidden].map((replacement) => [
        replacement.site.name,
        request.faithful(replacement),
      ]),
    );
    const names = this.#sites.map(({ site }) => site.name);
    const rows = await gather(request, parameters, names);
    return this.#sites.map(({ site }, index) => {
      request.progress?.('looking for sites to keep', index / names.length);
      return fitSite(site.name, site.depth, rows[index]!);
    });
  }
}
