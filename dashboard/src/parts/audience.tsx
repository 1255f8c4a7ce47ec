// Who is watching: a dimension's values by plays over a range.
import { useDimensionLabel, useMetric, useQuery } from "../lib/data";
import { valueName } from "../lib/format";
import { bodyOf, numberOf } from "../lib/query";
import { rangeOf } from "../lib/range";
import type { RangeName, Scope } from "../lib/scope";
import { BarList } from "./barlist";
import { Card, Skeleton } from "./card";
import { ErrorNote } from "./errors";

interface Props {
  dimension: string;
  metric: string;
  scope: Scope;
  range: RangeName;
  note?: string;
}

export function DimensionCard({ dimension, metric: name, scope, range, note }: Props) {
  const label = useDimensionLabel(dimension);
  const metric = useMetric(name);
  const refreshMs = rangeOf(range, 0).refreshMs;
  const answer = useQuery(
    JSON.stringify([dimension, name, scope, range]),
    () =>
      bodyOf({
        scope,
        interval: rangeOf(range, Date.now()),
        granularity: "total",
        metrics: [name],
        dimensions: [dimension],
        orderBy: [name, "desc"],
        limit: 300,
      }),
    refreshMs,
  );
  const items = (answer.data?.rows ?? []).map((row) => ({
    key: String(row[dimension]),
    name: valueName(dimension, row[dimension]),
    value: numberOf(row, name) ?? 0,
  }));
  return (
    <Card
      title={label}
      note={note ? `${metric.label}, ${note}` : metric.label}
      hint={metric.doc}
      class="audience"
    >
      {answer.error && <ErrorNote error={answer.error} kept={answer.data !== null} />}
      {answer.data ? <BarList items={items} unit={metric.unit} /> : !answer.error && <Skeleton />}
    </Card>
  );
}
