// Last script of the page: everything is defined.

startTheme();
startBar();
startFormulas();
startUnfolding();
const payload = JSON.parse(byId("payload").textContent || "{}");
if (payload.pairs) startBrowser(pairList(payload));
else if (payload.traces) startBrowser(traceList(payload));
