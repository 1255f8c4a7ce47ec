// The frame: who is signed in, what the server can tell, where we are; then one of the pages.
import { useCallback, useEffect, useMemo, useState } from "preact/hooks";
import { ApiError, api } from "./lib/api";
import { type Catalogue, CatalogueContext, SignedOutContext } from "./lib/data";
import { useLive } from "./lib/live";
import { usePlace } from "./lib/scope";
import type { Session } from "./lib/types";
import { HistoryPage } from "./pages/history";
import { LivePage } from "./pages/live";
import { SignInPage } from "./pages/signin";
import { ViewPage } from "./pages/view";
import { FailurePage } from "./parts/errors";
import { Footer } from "./parts/footer";
import { Header } from "./parts/header";
import { Breadcrumb } from "./parts/nav";

type Boot =
  | { state: "loading" }
  | { state: "signed_out" }
  | { state: "failed"; error: ApiError }
  | { state: "ready"; session: Session; catalogue: Catalogue };

async function boot(): Promise<Boot> {
  try {
    const session = await api.session();
    const [metrics, dimensions] = await Promise.all([api.metrics(), api.dimensions()]);
    const catalogue = {
      metrics: new Map(metrics.map((metric) => [metric.name, metric])),
      dimensions: new Map(dimensions.map((dimension) => [dimension.name, dimension])),
    };
    return { state: "ready", session, catalogue };
  } catch (cause) {
    const error = cause instanceof ApiError ? cause : new ApiError(0, "unreadable", String(cause), "");
    return error.signedOut ? { state: "signed_out" } : { state: "failed", error };
  }
}

export function App() {
  const [state, setState] = useState<Boot>({ state: "loading" });
  const load = useCallback(() => void boot().then(setState), []);
  const signedOut = useCallback(() => setState({ state: "signed_out" }), []);
  useEffect(load, []);
  if (state.state === "loading") return <div class="boot" role="status" aria-label="Loading" />;
  if (state.state === "signed_out") return <SignInPage onSignedIn={load} />;
  if (state.state === "failed") return <FailurePage error={state.error} onRetry={load} />;
  return (
    <SignedOutContext.Provider value={signedOut}>
      <CatalogueContext.Provider value={state.catalogue}>
        <Dashboard session={state.session} onSignedOut={signedOut} />
      </CatalogueContext.Provider>
    </SignedOutContext.Provider>
  );
}

function Dashboard({ session, onSignedOut }: { session: Session; onSignedOut: () => void }) {
  const [place, go] = usePlace();
  const scope = useMemo(
    () => ({ ...(place.video && { video: place.video }), ...(place.channel && { channel: place.channel }) }),
    [place.video, place.channel],
  );
  const live = useLive(scope, place.view === undefined && place.range === "live", onSignedOut);
  const subject = place.view === undefined ? place.video : place.view || "Look up a view";
  useEffect(() => {
    document.title = subject ? `${subject} · Viewmeter` : "Viewmeter";
  }, [subject]);
  return (
    <>
      <a class="skip" href="#main">
        Skip to the numbers
      </a>
      <Header session={session} place={place} go={go} live={live} onSignedOut={onSignedOut} />
      <main id="main" tabIndex={-1}>
        {place.view !== undefined ? (
          <ViewPage view={place.view} go={go} />
        ) : (
          <>
            <Breadcrumb place={place} go={go} />
            {place.range === "live" ? (
              <LivePage scope={scope} place={place} go={go} live={live} />
            ) : (
              <HistoryPage scope={scope} place={place} go={go} range={place.range} />
            )}
          </>
        )}
      </main>
      <Footer go={go} />
    </>
  );
}
