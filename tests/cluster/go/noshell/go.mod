module kubews.test/cluster/noshell

go 1.20
