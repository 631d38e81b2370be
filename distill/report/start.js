// Everything is defined by now.

startTheme();
startBar();
startFormulas();
startUnfolding();
const payload = JSON.parse(byId("payload").textContent || "{}");
if (payload.pairs) startBrowser(pairList(payload));
else if (payload.traces) startBrowser(traceList(payload));
