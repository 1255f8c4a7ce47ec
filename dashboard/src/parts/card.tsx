// A titled box, and figures set from the catalogue's label and unit.
import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";
import { useMetric } from "../lib/data";
import { figure } from "../lib/format";
import type { Unit } from "../lib/types";
import { Spark } from "./spark";

interface CardProps {
  title: ComponentChildren;
  note?: ComponentChildren;
  hint?: string | undefined;
  class?: string;
  children: ComponentChildren;
}

export function Card({ title, note, hint, class: name = "", children }: CardProps) {
  const id = useId();
  return (
    <section class={`card ${name}`} aria-labelledby={id}>
      <header>
        <h2 id={id} title={hint}>
          {title}
        </h2>
        {note && <span class="note">{note}</span>}
      </header>
      {children}
    </section>
  );
}

export function BigNumber({ value, unit }: { value: number | null | undefined; unit: Unit | string }) {
  const shown = figure(value, unit);
  return (
    <span class="number">
      {shown.value}
      {shown.unit && <small>{shown.unit}</small>}
    </span>
  );
}

/** One metric now, with its last hour under it. */
export function MetricCard(props: {
  name: string;
  value: number | null | undefined;
  trend?: (number | null)[];
}) {
  const metric = useMetric(props.name);
  return (
    <Card title={metric.label} hint={metric.doc} class="metric">
      <BigNumber value={props.value} unit={metric.unit} />
      <Spark values={props.trend ?? []} />
    </Card>
  );
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <p class="empty">{children}</p>;
}

export function Skeleton({ lines = 4 }: { lines?: number }) {
  return (
    <div class="skeleton" role="status" aria-label="Loading">
      {Array.from({ length: lines }, (_, index) => (
        <span key={index} />
      ))}
    </div>
  );
}
