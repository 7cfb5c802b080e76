"""Market data: pairs, trades, tickers and candles. The rules and the SQL of one domain in one room."""
