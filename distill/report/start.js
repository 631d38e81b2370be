// Last script of the page: everything is defined.

startTheme();
startBar();
startFormulas();
startUnfolding();
const payload = JSON.parse(byId("payload").textContent || "{}");
const { answers, pairs, traces } = payload;
if (answers) startBrowser(pairList({ ...payload, ...answers }, ANSWERS_OF_RUN));
if (pairs) startBrowser(pairList(payload, TWO_RUNS));
else if (traces && traces.length) startBrowser(traceList(payload));
